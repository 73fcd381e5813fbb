/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loses power at every moment of a tracker's life, and looks what is left.
 *
 * usage: test-tracker-crash [--count=IMAGES] [--seed=NUMBER]
 *
 * A tracker is worked by hand (hand.h): changes of all lengths, several under way; edits of all
 * kinds; regions that get cold; a disk that fails; kills, power cuts and clean ends.  At each write
 * of its store images are opened and compared with the truth (model.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/attr.h"
#include "base/log.h"
#include "hand.h"
#include "model.h"

#define N_ROUNDS 12u
#define MIB (UINT64_C(1) << 20)

static const struct store_geometry geometries[] = {
	{ .granule_shift = 12, .region_shift = 16, .arm_limit = 64, .size = 16 * MIB },
	{ .granule_shift = 12, .region_shift = 16, .arm_limit = 64, .size = 300 * MIB + 5 * 4096 + 512 },
	{ .granule_shift = 12, .region_shift = 18, .arm_limit = 64, .size = 1000 * MIB - 512 },
	{ .granule_shift = 16, .region_shift = 22, .arm_limit = 2000, .size = 5000 * MIB + 1 },
};

struct figures {
	uint64_t n_moments, n_images, n_unclean, n_changes, n_edits, n_refused, n_faults;
	uint64_t n_power_cuts, n_kills, n_ends;
};

struct world {
	struct hand hand;               /* first: the disk's and the hand's callbacks find it */
	struct image image;
	struct model now, next;         /* next: while an edit is under way, or was left half-way */
	bool editing;
	/* A killed process leaves one of the two in the cache; until somebody has opened the store, the
	 * medium may have the other one. */
	struct model other;
	bool may_be_other;
	uint64_t sequence;              /* of the catalogue when it began */
	bool with_faults, faults;       /* some have been, since all was known to be well */
	bool nested;
	uint64_t *shown, *known;
	unsigned n_names;
	const char *step;
	uint64_t seed;
	struct figures *figures;
};

static uint64_t below(struct world *world, uint64_t end)
{
	return disk_random(&world->hand.disk, end);
}

static void complain(const struct world *world, const char *what)
{
	printf("seed %llu, moment %llu, image %llu, during %s: %s\n",
	       (unsigned long long) world->seed, (unsigned long long) world->figures->n_moments,
	       (unsigned long long) world->figures->n_images, world->step, what);
	exit(1);
}

/* Comparing */

/* An edit that has failed half-way may be there all the same, until something is committed. */
static const struct model *model_of(const struct world *world, const struct catalogue *catalogue)
{
	if (world->editing && catalogue->sequence > world->sequence &&
	    model_names(&world->next, catalogue))
		return &world->next;
	if (world->may_be_other && !model_names(&world->now, catalogue))
		return &world->other;
	return &world->now;
}

static const struct model *compare(struct world *world, struct store *found, struct medium *medium)
{
	const struct tracker *tracker = world->hand.tracker;
	struct store_recovery recovery;
	struct failure why = { 0 };
	const struct model *model;
	struct model_check check = {
		.found = found, .recovery = &recovery, .faults = world->faults,
		.live = tracker ? tracker->store.deltas : NULL,
		.shown = world->shown, .known = world->known,
	};
	const char *wrong;

	if (store_open(found, medium, &recovery, &why) < 0)
		complain(world, why.text);
	model = model_of(world, &found->catalogue);
	world->figures->n_unclean += recovery.unclean;
	if (recovery.n_armed > world->hand.geometry.arm_limit)
		complain(world, "more is armed than may be");
	/* Of a delta that nobody records to any more, since it was lost. */
	if (recovery.record_missing || (recovery.n_torn_pages && !world->faults))
		complain(world, "pages or the record are damaged");
	wrong = model_compare(model, &check);
	if (*wrong)
		complain(world, wrong);
	free(recovery.regions);
	return model;
}

static void check_image(struct world *world, enum survivors survivors)
{
	static struct store found;

	image_take(&world->image, &world->hand.disk, survivors);
	world->figures->n_images++;
	(void) compare(world, &found, &world->image.medium);
	store_close(&found);
}

static void begin_some(struct world *world);

/* What other threads and the power do between two writes. */
static void meanwhile(struct world *world)
{
	struct disk *disk = &world->hand.disk;

	if (world->hand.tracker && below(world, 3) == 0)
		begin_some(world);
	if (world->hand.tracker && below(world, 4) == 0)
		(void) hand_end(&world->hand);
	if (world->with_faults && below(world, 60) == 0) {
		disk->fail_write = below(world, 2);
		disk->fail_sync = !disk->fail_write;
		world->faults = true;
		world->figures->n_faults++;
	}
	if (below(world, 150) == 0)
		disk->dead = true;
}

static void after_write(struct disk *disk)
{
	struct world *world = disk->userdata;

	world->figures->n_moments++;
	if (!disk->lies) {              /* who compares by what can be read would be lied to */
		check_image(world, SURVIVES_NOTHING);
		check_image(world, SURVIVES_ALL);
		check_image(world, SURVIVES_SOME);
		check_image(world, SURVIVES_SOME);
	} else
		check_image(world, SURVIVES_NOTHING);
	meanwhile(world);
}

static void after_sync(struct disk *disk)
{
	struct world *world = disk->userdata;

	world->figures->n_moments++;
	check_image(world, SURVIVES_NOTHING);
	meanwhile(world);
}

/* Changes */

/* What is disabled has missed it. */
static void note_missed(struct model *model, struct catalogue *catalogue)
{
	for (unsigned i = 0; i < model->n; i++) {
		struct model_bitmap *bitmap = &model->of[i];
		const char *names[] = { bitmap->name, bitmap->was, bitmap->source };

		for (unsigned k = 0; k < ARRAY_LEN(names); k++) {
			const struct bitmap_entry *entry = catalogue_find(catalogue, names[k]);

			bitmap->may_show_all |= entry && entry->state == BITMAP_DISABLED;
		}
	}
}

static void made(struct hand *hand, const struct change *change)
{
	struct world *world = (struct world *) hand;
	unsigned shift = hand->geometry.granule_shift;
	uint64_t first = change->start >> shift, end = ((change->end - 1) >> shift) + 1;
	bool begun = hand->tracker->store.catalogue.sequence > world->sequence;

	model_mark(&world->now, first, end, true);
	if (world->editing)
		model_mark(&world->next, first, end, begun);
	note_missed(&world->now, &hand->tracker->store.catalogue);
	if (world->editing)
		note_missed(&world->next, &hand->tracker->store.catalogue);
	world->figures->n_changes++;
}

/* Mostly near to each other; some over many regions. */
static void begin_some(struct world *world)
{
	uint64_t size = world->hand.geometry.size, region = UINT64_C(1) <<
	                world->hand.geometry.region_shift;
	uint64_t start = below(world, 3) ? below(world, size / 16) : below(world, size);
	uint64_t length = 1 + below(world, below(world, 8) ? region : 24 * region);

	hand_begin(&world->hand, start, start + length < size ? start + length : size);
}

/* Life and death */

static void after_life(struct world *world, bool power)
{
	struct hand *hand = &world->hand;
	static struct store found;
	const struct model *model;

	if (power) {
		world->step = "a power cut";
		world->figures->n_power_cuts++;
		image_take(&world->image, &hand->disk, (enum survivors) below(world, 3));
		disk_become(&hand->disk, &world->image);
	} else {
		world->step = "a kill";
		world->figures->n_kills++;
		hand->disk.dead = hand->disk.fail_sync = hand->disk.fail_write = false;
	}
	hand->disk.quiet = true;
	model = compare(world, &found, &hand->disk.medium);
	if (!power && world->editing)
		model_copy(&world->other, model == &world->next ? &world->now : &world->next);
	world->may_be_other = !power && (world->may_be_other || world->editing);
	if (model != &world->now)
		model_copy(&world->now, model);
	note_missed(&world->now, &found.catalogue);     /* what was armed, perhaps */
	store_close(&found);
	hand->disk.quiet = false;
	world->editing = false;
	for (unsigned i = 0; i < world->now.n; i++)
		world->now.of[i].fresh = false;
}

/* The process ends without another write, whatever it may try. */
static void die(struct world *world)
{
	world->step = "the end";
	world->hand.disk.dead = true;
	world->hand.disk.quiet = true;
	if (world->hand.tracker)
		hand_close(&world->hand);
	world->hand.disk.quiet = false;
	after_life(world, below(world, 3) != 0);
}

static void settle_in(struct world *world)
{
	struct failure why;

	while (!world->hand.tracker) {
		world->step = "opening";
		world->sequence = UINT64_MAX;
		world->hand.settings.on_error = below(world, 2) ? TRACKER_STOP : TRACKER_LOST;
		if (hand_open(&world->hand, &why) == 0) {
			world->may_be_other = false;
			break;
		}
		world->hand.tracker = NULL;
		if (!world->hand.disk.dead && !world->faults)
			complain(world, why.text);
		die(world);
	}
}

static void step_end(struct world *world)
{
	world->step = "a clean end";
	world->figures->n_ends++;
	while (hand_end(&world->hand))
		;
	hand_close(&world->hand);
	if (world->hand.disk.dead || world->editing)
		die(world);
}

/* Edits */

static void mix(const struct model *model, uint64_t *into, const uint64_t *words)
{
	for (uint32_t w = 0; w < model->n_words; w++)
		into[w] |= words[w];
}

/* The draft of what the edit would make; 0 when there is nothing to try it on. */
static bool draft_new(struct world *world, struct edit *edit)
{
	struct model *next = &world->next;
	unsigned number;

	if (next->n == MODEL_BITMAPS)
		return false;
	(void) snprintf(edit->name, sizeof edit->name, "b%u", world->n_names++);
	number = next->n;
	model_add(next, edit->name)->checkpoint = edit->kind == EDIT_CHECKPOINT;
	for (unsigned i = 0; i < number; i++)
		if (!next->of[i].frozen)
			next->of[i].until[number] = words_copy(next, next->of[i].truth);
	return true;
}

static bool draft_delta(struct world *world, struct edit *edit, const char *names[2])
{
	struct model *next = &world->next;
	unsigned from = (unsigned) below(world, next->n), to = (unsigned) below(world, next->n);
	struct model_bitmap *made_of;
	const uint64_t *words = next->of[from].until[to];

	if (next->n == MODEL_BITMAPS)
		return false;
	names[0] = world->now.of[from].name;
	names[1] = world->now.of[to].name;
	edit->sources = names;
	edit->n_sources = 2;
	if (!words || below(world, 2)) {
		words = next->of[from].truth;
		edit->n_sources = 1;
	}
	(void) snprintf(edit->name, sizeof edit->name, "d%u", world->n_names++);
	made_of = model_add(next, edit->name);
	made_of->frozen = true;
	mix(next, made_of->truth, words);
	return true;
}

static bool draft_change(struct world *world, struct edit *edit, const char *names[2])
{
	struct model *next = &world->next;
	unsigned i = (unsigned) below(world, next->n), j = (unsigned) below(world, next->n);
	struct model_bitmap *bitmap = &next->of[i];

	(void) snprintf(edit->name, sizeof edit->name, "%s", bitmap->name);
	if (edit->kind == EDIT_CLEAR) {
		memset(bitmap->truth, 0, next->n_words * sizeof(uint64_t));
		bitmap->fresh = true;
		bitmap->may_show_all = false;
	} else if (edit->kind == EDIT_REMOVE)
		model_remove(next, i);
	else if (edit->kind == EDIT_RENAME) {
		memcpy(bitmap->was, bitmap->name, sizeof bitmap->was);
		(void) snprintf(bitmap->name, sizeof bitmap->name, "r%u", world->n_names++);
		(void) snprintf(edit->other, sizeof edit->other, "%s", bitmap->name);
	} else if (edit->kind == EDIT_MERGE) {
		memcpy(bitmap->source, next->of[j].name, sizeof bitmap->source);
		names[0] = world->now.of[j].name;
		edit->sources = names;
		edit->n_sources = 1;
		mix(next, bitmap->truth, next->of[j].truth);
		bitmap->may_show_all |= next->of[j].may_show_all;
	}
	return true;
}

static bool draft(struct world *world, struct edit *edit, const char *names[2])
{
	model_copy(&world->next, &world->now);
	if (edit->kind == EDIT_ADD || edit->kind == EDIT_CHECKPOINT)
		return draft_new(world, edit);
	if (world->now.n == 0)
		return false;
	return edit->kind == EDIT_DELTA ? draft_delta(world, edit, names) :
	       draft_change(world, edit, names);
}

/* Of a refused edit nothing is there; of one that the store failed in, perhaps. */
static void after_edit(struct world *world, const struct edit *edit, int result)
{
	world->figures->n_edits++;
	world->figures->n_refused += result < 0;
	if (result == 0) {
		model_copy(&world->now, &world->next);
		for (unsigned i = 0; i < world->now.n; i++)
			world->now.of[i].fresh = false;
	} else if (result != -EINVAL && result != -EPERM && !world->faults && !world->hand.disk.dead)
		complain(world, edit->why.text);
	world->editing = result < 0 && world->hand.tracker->unusable;
}

static void step_edit(struct world *world)
{
	static const enum edit_kind kinds[] = {
		EDIT_ADD, EDIT_CHECKPOINT, EDIT_CHECKPOINT, EDIT_CLEAR, EDIT_ENABLE, EDIT_ENABLE,
		EDIT_DISABLE, EDIT_REMOVE, EDIT_RENAME, EDIT_MERGE, EDIT_DELTA, EDIT_DELTA,
	};
	const char *names[2] = { NULL, NULL };
	struct edit edit = { .kind = kinds[below(world, ARRAY_LEN(kinds))] };
	int r;

	if (world->now.n == MODEL_BITMAPS)
		edit.kind = EDIT_REMOVE;
	world->editing &= world->hand.tracker->unusable;
	if (world->editing || !draft(world, &edit, names))
		return;
	world->step = "an edit";
	world->sequence = world->hand.tracker->store.catalogue.sequence;
	world->editing = true;
	r = hand_edit(&world->hand, &edit);
	after_edit(world, &edit, r);
}

static void step_held(struct world *world)
{
	struct edit hold = { .kind = EDIT_HOLD }, release = { .kind = EDIT_RELEASE };
	struct edit edit = { .kind = EDIT_CHECKPOINT, .held = true };
	const char *names[2];

	if (world->editing || !draft(world, &edit, names))
		return;
	world->step = "a held checkpoint";
	if (hand_edit(&world->hand, &hold) == 0) {
		/* What was under way when it was held has changed the truth. */
		(void) snprintf(edit.name, sizeof edit.name, "%s", "");
		if (draft(world, &edit, names)) {
			world->sequence = world->hand.tracker->store.catalogue.sequence;
			world->editing = true;
			after_edit(world, &edit, hand_edit(&world->hand, &edit));
		}
	}
	(void) hand_edit(&world->hand, &release);
}

/* The device's flush fails: nothing is made. */
static void step_failing_flush(struct world *world)
{
	world->hand.flush_error = -EIO;
	world->faults |= true;
	step_edit(world);
	world->hand.flush_error = 0;
	world->faults &= world->with_faults;
}

static void step_changes(struct world *world)
{
	unsigned n = 1 + (unsigned) below(world, 12);

	world->step = "changes";
	for (unsigned i = 0; i < n; i++) {
		begin_some(world);
		if (below(world, 2))
			(void) hand_end(&world->hand);
		if (below(world, 3) == 0)
			hand_work(&world->hand);
	}
	hand_work(&world->hand);
}

static void step_later(struct world *world)
{
	world->step = "getting cold";
	hand_later(1000000 * (1 + below(world, 3)));
	hand_work(&world->hand);
}

static void (*const steps[])(struct world *) = {
	step_changes, step_changes, step_changes, step_changes, step_changes, step_later, step_later,
	step_later, step_edit, step_edit, step_edit, step_held, step_failing_flush,
};

static void play(struct world *world, uint64_t until)
{
	while (world->figures->n_images < until) {
		settle_in(world);
		steps[below(world, ARRAY_LEN(steps))](world);
		if (world->hand.disk.dead || below(world, 80) == 0)
			die(world);
		else if (below(world, 40) == 0)
			step_end(world);
	}
	if (world->hand.tracker)
		die(world);
}

static void world_up(struct world *world, unsigned round, uint64_t seed, struct figures *figures)
{
	const struct store_geometry *geometry = &geometries[round % ARRAY_LEN(geometries)];
	uint64_t n_granules = (geometry->size >> geometry->granule_shift) + 1;
	uint32_t n_words = delta_pages_for(n_granules) * DELTA_PAGE_WORDS;

	*world = (struct world) { .figures = figures, .seed = seed, .with_faults = round % 3 == 2 };
	hand_init(&world->hand, geometry, seed);
	world->hand.made = made;
	world->hand.disk.after_write = after_write;
	world->hand.disk.after_sync = after_sync;
	world->hand.disk.userdata = world;
	model_init(&world->now, n_words);
	model_init(&world->next, n_words);
	model_init(&world->other, n_words);
	world->shown = calloc(n_words, sizeof(uint64_t));
	world->known = calloc(n_words, sizeof(uint64_t));
}

static void world_down(struct world *world)
{
	model_clear(&world->now);
	model_clear(&world->next);
	model_clear(&world->other);
	image_deinit(&world->image);
	hand_deinit(&world->hand);
	free(world->shown);
	free(world->known);
}

static void print(const struct figures *f, uint64_t seed, double seconds)
{
	printf("seed %llu: %llu images at %llu moments, %llu of them unclean, in %.1f s\n"
	       "%llu changes, %llu edits (%llu refused); %llu power cuts, %llu kills, %llu clean ends, "
	       "%llu faults\n",
	       (unsigned long long) seed, (unsigned long long) f->n_images,
	       (unsigned long long) f->n_moments, (unsigned long long) f->n_unclean, seconds,
	       (unsigned long long) f->n_changes, (unsigned long long) f->n_edits,
	       (unsigned long long) f->n_refused, (unsigned long long) f->n_power_cuts,
	       (unsigned long long) f->n_kills, (unsigned long long) f->n_ends,
	       (unsigned long long) f->n_faults);
}

static bool parse(int argc, char **argv, uint64_t *count, uint64_t *seed)
{
	for (int i = 1; i < argc; i++) {
		char *end = argv[i];

		if (strncmp(argv[i], "--count=", 8) == 0)
			*count = strtoull(argv[i] + 8, &end, 10);
		else if (strncmp(argv[i], "--seed=", 7) == 0)
			*seed = strtoull(argv[i] + 7, &end, 10);
		if (*end || end == argv[i])
			return false;
	}
	return *count > 0 && *seed > 0;
}

int main(int argc, char **argv)
{
	const char *wanted = getenv("NBD_EXPORT_CRASH_IMAGES");
	uint64_t count = wanted ? strtoull(wanted, NULL, 10) : 100000;
	uint64_t seed = 1;
	struct figures figures = { 0 };
	clock_t start = clock();

	if (!parse(argc, argv, &count, &seed)) {
		fprintf(stderr, "usage: test-tracker-crash [--count=IMAGES] [--seed=NUMBER]\n");
		return 2;
	}
	log_set_level(-1);
	for (unsigned round = 0; round < N_ROUNDS; round++) {
		AUTO_FREE struct world *world = malloc(sizeof *world);

		world_up(world, round, seed * 1000 + round, &figures);
		play(world, count * (round + 1) / N_ROUNDS);
		world_down(world);
	}
	print(&figures, seed, (double) (clock() - start) / CLOCKS_PER_SEC);
	return 0;
}
