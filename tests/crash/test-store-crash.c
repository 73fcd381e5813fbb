/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loses power at every moment of a store's life, and looks what is left.
 *
 * usage: test-store-crash [--count=IMAGES] [--seed=NUMBER]
 *
 * Rounds of random work on stores of several sizes, until that many images have been opened.
 * The same seed does the same again.  NBD_EXPORT_CRASH_IMAGES says how many where --count does
 * not, for builds that are slow.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/attr.h"
#include "world.h"

#define N_ROUNDS 12u
#define MIB (UINT64_C(1) << 20)

/* Small and uneven: the last granule, region and page are partly there. */
static const struct store_geometry geometries[] = {
	{ .granule_shift = 12, .region_shift = 16, .arm_limit = 64, .size = 16 * MIB },
	{ .granule_shift = 12, .region_shift = 16, .arm_limit = 64, .size = 300 * MIB + 5 * 4096 + 512 },
	{ .granule_shift = 12, .region_shift = 18, .arm_limit = 64, .size = 1000 * MIB - 512 },
	{ .granule_shift = 16, .region_shift = 22, .arm_limit = 2000, .size = 5000 * MIB + 1 },
};

static void play(struct world *world, uint64_t until)
{
	while (world->figures->n_images < until) {
		work_step(world);
		if (world->disk.dead && disk_random(&world->disk, 3) != 0)
			world_cut_power(world);
		else if (world->disk.dead || disk_random(&world->disk, 60) == 0)
			world_kill(world);
		else
			world->disk.fail_sync |= disk_random(&world->disk, 40) == 0;
	}
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

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static void print(const struct figures *f, uint64_t seed, double seconds)
{
	printf("seed %llu: %llu images at %llu moments, %llu of them unclean, in %.1f s\n",
	       (unsigned long long) seed, (unsigned long long) f->n_images,
	       (unsigned long long) f->n_points, (unsigned long long) f->n_unclean, seconds);
	printf("%llu commits, %llu records, %llu pages; %llu power cuts, %llu kills, %llu failed syncs; "
	       "%llu times a torn page fell back\n",
	       (unsigned long long) f->n_commits, (unsigned long long) f->n_records,
	       (unsigned long long) f->n_pages, (unsigned long long) f->n_power_cuts,
	       (unsigned long long) f->n_kills, (unsigned long long) f->n_failed_syncs,
	       (unsigned long long) f->n_mended);
}

int main(int argc, char **argv)
{
	const char *wanted = getenv("NBD_EXPORT_CRASH_IMAGES");
	uint64_t count = wanted ? strtoull(wanted, NULL, 10) : 100000;
	uint64_t seed = 1;
	struct figures figures = { 0 };
	double start = now();

	if (!parse(argc, argv, &count, &seed)) {
		fprintf(stderr, "usage: test-store-crash [--count=IMAGES] [--seed=NUMBER]\n");
		return 2;
	}
	for (unsigned round = 0; round < N_ROUNDS; round++) {
		AUTO_FREE struct world *world = malloc(sizeof *world);

		world_init(world, &geometries[round % ARRAY_LEN(geometries)], seed * 1000 + round,
		           &figures);
		world->n_subsets = 3;
		world->may_die = round > 0;
		play(world, count * (round + 1) / N_ROUNDS);
		world_deinit(world);
	}
	print(&figures, seed, now() - start);
	return 0;
}
