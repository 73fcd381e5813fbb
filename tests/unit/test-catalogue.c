/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <stdlib.h>

#include "dirty/catalogue.h"
#include "dirty/seal.h"

static const uint8_t uuid[16] = "a store's own id";
static const uint8_t other_uuid[16] = "another one's id";
static const char magic[8] = { 'N', 'B', 'D', 'b', 'm', 'C', 'A', 'T' };

/* Too large for the stack, and each test has its own. */
struct things {
	struct catalogue catalogue, again;
	uint8_t encoded[CATALOGUE_SIZE], changed[CATALOGUE_SIZE];
	size_t length;
};

static void fill(struct catalogue *c)
{
	struct bitmap_entry *b;

	c->sequence = 41;
	c->attached = true;
	c->attached_at = 1700000000000000;
	strcpy(c->identity, "wwn-0x5000c500a1b2c3d4");
	c->device_size = UINT64_C(16) << 40;
	c->trace = (struct device_trace) { .known = true, .boot_id = { 1, 2, 3 }, .disk_sequence = 9,
		.sectors_written = 10, .sectors_discarded = 11, .changed_sec = -5, .changed_nsec = 6,
		.inode = 7 };
	c->next_id = 100;
	c->recording = 3;
	c->unclean_ends = 2;
	c->over_reported = 65536;
	c->deltas[0].id = 50;
	c->deltas[3].id = 99;
	c->deltas[AREAS_MAX - 1].id = 7;
	b = &c->bitmaps[c->n_bitmaps++];
	*b = (struct bitmap_entry) { .state = BITMAP_RECORDING, .follows = true, .created = 5 };
	strcpy(b->name, "n\xc3\xa4""chtlich");
	area_put(&b->shows, 0);
	b = &c->bitmaps[c->n_bitmaps++];
	*b = (struct bitmap_entry) { .state = BITMAP_GAP, .checkpoint = true, .watches = true };
	strcpy(b->name, "monday");
	strcpy(b->reason, "written to while it was disabled");
	area_put(&b->missed, AREAS_MAX - 1);
}

static struct things *things_new(void)
{
	struct things *t = calloc(1, sizeof *t);

	fill(&t->catalogue);
	t->length = catalogue_encode(&t->catalogue, uuid, t->encoded);
	return t;
}

TEST(a_catalogue_comes_back_as_it_was)
{
	struct things *t = things_new();

	CHECK_EQ("whole blocks", t->length, 4096);
	CHECK_STR("decoded", catalogue_decode(t->encoded, uuid, &t->again), NULL);
	CHECK(memcmp(&t->catalogue, &t->again, sizeof t->again) == 0);
	free(t);
}

TEST(the_largest_catalogue_fits)
{
	struct things *t = calloc(1, sizeof *t);
	struct catalogue *c = &t->catalogue;

	c->next_id = 1000;
	c->recording = NO_AREA;
	memset(c->identity, 'i', sizeof c->identity - 1);
	for (unsigned i = 0; i < AREAS_MAX; i++)
		c->deltas[i].id = i + 1;
	for (c->n_bitmaps = 0; c->n_bitmaps < BITMAPS_MAX; c->n_bitmaps++) {
		struct bitmap_entry *b = &c->bitmaps[c->n_bitmaps];

		memset(b->name, 'n', BITMAP_NAME_MAX);
		memcpy(b->name, (char[]) { (char) ('0' + c->n_bitmaps / 10),
		                           (char) ('0' + c->n_bitmaps % 10) }, 2);
		memset(b->reason, 'r', BITMAP_REASON_MAX);
		memset(&b->shows, 0xff, sizeof b->shows);
		memset(&b->missed, 0xff, sizeof b->missed);
	}
	CHECK(catalogue_encode(c, uuid, t->encoded) <= CATALOGUE_SIZE);
	CHECK_STR("decoded", catalogue_decode(t->encoded, uuid, &t->again), NULL);
	CHECK(memcmp(c, &t->again, sizeof t->again) == 0);
	free(t);
}

TEST(a_byte_that_changed_is_noticed_or_does_not_matter)
{
	struct things *t = things_new();
	unsigned n_taken = 0;

	memcpy(t->changed, t->encoded, sizeof t->changed);
	for (size_t i = 0; i < t->length; i++) {
		t->changed[i] ^= (uint8_t) (1u << i % 8);
		if (catalogue_decode(t->changed, uuid, &t->again) == NULL) {
			n_taken++;
			CHECK(memcmp(&t->catalogue, &t->again, sizeof t->again) == 0);
		}
		t->changed[i] = t->encoded[i];
	}
	CHECK(n_taken > 0);             /* the padding */
	free(t);
}

TEST(a_catalogue_that_was_cut_off_is_noticed_or_whole)
{
	struct things *t = things_new();

	for (size_t length = 0; length <= t->length; length++) {
		memset(t->changed, 0, sizeof t->changed);
		memcpy(t->changed, t->encoded, length);
		if (catalogue_decode(t->changed, uuid, &t->again) == NULL)
			CHECK(memcmp(&t->catalogue, &t->again, sizeof t->again) == 0);
		else
			CHECK(memcmp(t->changed, t->encoded, t->length) != 0);
	}
	CHECK(catalogue_decode(t->encoded, other_uuid, &t->again) != NULL);
	free(t);
}

/* Behind a checksum that is right, as somebody may write it. */
TEST(no_bytes_behind_a_right_checksum_break_the_decoder)
{
	struct things *t = things_new();
	uint64_t sequence;
	size_t used;

	CHECK_STR("seal", seal_check(t->encoded, CATALOGUE_SIZE, magic, uuid, &sequence, &used), NULL);
	for (size_t i = SEAL_SIZE; i < used; i++)
		for (unsigned k = 0; k < 4; k++) {
			static const uint8_t values[] = { 0x00, 0xff, 0x80, 0x7f };

			memcpy(t->changed, t->encoded, t->length);
			t->changed[i] = values[k];
			seal_unit(t->changed, used, magic, uuid, 1);
			if (catalogue_decode(t->changed, uuid, &t->again) == NULL)
				(void) catalogue_encode(&t->again, uuid, t->changed);
		}
	for (size_t cut = SEAL_SIZE; cut < used; cut++) {
		memcpy(t->changed, t->encoded, t->length);
		seal_unit(t->changed, cut, magic, uuid, 1);
		CHECK(catalogue_decode(t->changed, uuid, &t->again) != NULL);
	}
	free(t);
}

static void no_name(struct catalogue *c)
{
	c->bitmaps[0].name[0] = '\0';
}

static void control_name(struct catalogue *c)
{
	strcpy(c->bitmaps[0].name, "a\nb");
}

static void bad_utf8_name(struct catalogue *c)
{
	strcpy(c->bitmaps[0].name, "a\xff");
}

static void same_name(struct catalogue *c)
{
	strcpy(c->bitmaps[1].name, c->bitmaps[0].name);
}

static void control_reason(struct catalogue *c)
{
	strcpy(c->bitmaps[1].reason, "\x1b[2J");
}

static void no_state(struct catalogue *c)
{
	c->bitmaps[0].state = BITMAP_LOST + 1;
}

static void shows_nothing(struct catalogue *c)
{
	area_put(&c->bitmaps[0].shows, 5);
}

static void missed_nothing(struct catalogue *c)
{
	area_put(&c->bitmaps[0].missed, 6);
}

static void records_nowhere(struct catalogue *c)
{
	c->recording = 4;
}

static void records_beyond(struct catalogue *c)
{
	c->recording = AREAS_MAX;
}

static void same_id(struct catalogue *c)
{
	c->deltas[0].id = 99;
}

static void late_id(struct catalogue *c)
{
	c->deltas[0].id = 100;
}

static void no_next_id(struct catalogue *c)
{
	c->next_id = UINT64_MAX;
}

static void high_sequence(struct catalogue *c)
{
	c->sequence = SEQUENCE_END;
}

static void control_identity(struct catalogue *c)
{
	strcpy(c->identity, "\x7f");
}


TEST(a_catalogue_that_makes_no_sense_is_refused)
{
	static const struct {
		const char *where;
		void (*spoil)(struct catalogue *c);
	} cases[] = {
		{ "no name", no_name }, { "control character", control_name },
		{ "not UTF-8", bad_utf8_name }, { "same name", same_name },
		{ "reason", control_reason }, { "state", no_state }, { "shows", shows_nothing },
		{ "missed", missed_nothing }, { "recording", records_nowhere },
		{ "recording beyond", records_beyond }, { "same id", same_id }, { "late id", late_id },
		{ "next id", no_next_id }, { "sequence", high_sequence },
		{ "identity", control_identity },
	};
	struct things *t = things_new();

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		memset(&t->catalogue, 0, sizeof t->catalogue);
		fill(&t->catalogue);
		cases[i].spoil(&t->catalogue);
		(void) catalogue_encode(&t->catalogue, uuid, t->encoded);
		if (catalogue_decode(t->encoded, uuid, &t->again) == NULL)
			CHECK_STR(cases[i].where, "accepted", "refused");
	}
	free(t);
}

TEST(areas_that_nobody_uses_are_swept)
{
	struct things *t = things_new();
	struct catalogue *c = &t->catalogue;
	struct area_set freed;

	CHECK_EQ("first free", catalogue_free_area(c), 1);
	freed = catalogue_sweep(c);
	CHECK(!area_in(&freed, 0) && !area_in(&freed, 3) && !area_in(&freed, AREAS_MAX - 1));
	area_drop(&c->bitmaps[0].shows, 0);
	freed = catalogue_sweep(c);
	CHECK(area_in(&freed, 0) && !area_in(&freed, 3));
	CHECK_EQ("free", catalogue_free_area(c), 0);
	for (unsigned i = 0; i < AREAS_MAX; i++)
		c->deltas[i].id = i + 1;
	CHECK_EQ("none free", catalogue_free_area(c), NO_AREA);
	CHECK(catalogue_find(c, "monday") == &c->bitmaps[1]);
	CHECK(catalogue_find(c, "tuesday") == NULL);
	CHECK_STR("state", bitmap_state_word(c->bitmaps[1].state), "gap");
	free(t);
}
