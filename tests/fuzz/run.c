/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drives a fuzz target without libFuzzer, so that every build can: runs the files and
 * folders it is given, then --runs=N mutants of them, the same ones for the same --seed=N.
 * It learns nothing from what it sees; that is libFuzzer's part.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

#define INPUT_SIZE_MAX 8192u         /* bytes; above every limit that the decoders have */
#define N_SEEDS_MAX 256u

struct input {
	uint8_t at[INPUT_SIZE_MAX];
	size_t len;
};

static struct input *seeds[N_SEEDS_MAX];
static size_t n_seeds;
static uint64_t state = 1;

static uint32_t random_below(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return n ? (uint32_t) (state >> 16) % n : 0;
}

static void *allocate(size_t len)
{
	void *at = malloc(len ? len : 1);

	if (!at)
		abort();
	return at;
}

/* From memory of the exact length, where the sanitizers see each byte too many. */
static void run(const struct input *input)
{
	uint8_t *copy = allocate(input->len);

	memcpy(copy, input->at, input->len);
	(void) LLVMFuzzerTestOneInput(copy, input->len);
	free(copy);
}

static void die(const char *path)
{
	perror(path);
	exit(1);
}

static void add_file(const char *path)
{
	struct input *input = allocate(sizeof *input);
	FILE *file = fopen(path, "rb");

	if (!file || n_seeds == N_SEEDS_MAX)
		die(path);
	input->len = fread(input->at, 1, sizeof input->at, file);
	if (ferror(file))
		die(path);
	(void) fclose(file);
	seeds[n_seeds++] = input;
}

/* In the order of their names, which is the same everywhere. */
static void add_folder(const char *path)
{
	struct dirent **entries;
	int n = scandir(path, &entries, NULL, alphasort);
	char file[4096];

	if (n < 0)
		die(path);
	for (int i = 0; i < n; i++) {
		if (entries[i]->d_name[0] != '.') {
			(void) snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
			add_file(file);
		}
		free(entries[i]);
	}
	free(entries);
}

static void add(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		die(path);
	if (S_ISDIR(st.st_mode))
		add_folder(path);
	else
		add_file(path);
}

/* Numbers at which decoders go wrong, big-endian, 1 to 4 bytes of them. */
static void put_number(struct input *input, size_t where)
{
	static const uint32_t numbers[] = { 0, 1, 2, 0x7f, 0x80, 0xff, 0x1000, 0x1001, 0x7fff,
	                                    0x8000, 0xffff, 0x7fffffff, 0x80000000u, 0xfffffffcu,
	                                    0xffffffffu };
	uint32_t number = htobe32(numbers[random_below(sizeof numbers / sizeof *numbers)]);
	size_t size = 1 + random_below(4);

	if (size > input->len - where)
		size = input->len - where;
	memcpy(input->at + where, (uint8_t *) &number + sizeof number - size, size);
}

/* Takes `size` bytes out at `where`, or doubles them there. */
static void resize(struct input *input, size_t where, size_t size, bool grow)
{
	if (size > input->len - where)
		size = input->len - where;
	if (grow && size > INPUT_SIZE_MAX - input->len)
		return;
	if (grow) {
		memmove(input->at + where + size, input->at + where, input->len - where);
		input->len += size;
	} else {
		memmove(input->at + where, input->at + where + size, input->len - where - size);
		input->len -= size;
	}
}

static void mutate(struct input *input)
{
	size_t where = random_below((uint32_t) input->len);

	if (input->len == 0)
		return;
	switch (random_below(8)) {
	case 0:
		input->len = where;
		break;
	case 1:
		resize(input, where, 1 + random_below(8), true);
		break;
	case 2:
		resize(input, where, 1 + random_below(8), false);
		break;
	case 3:
	case 4:
		put_number(input, where);
		break;
	case 5:
		input->at[where] = (uint8_t) random_below(256);
		break;
	default:
		input->at[where] ^= (uint8_t) (1u << random_below(8));
		break;
	}
}

/* A seed with some bytes changed, or noise. */
static void next_input(struct input *ret)
{
	if (n_seeds && random_below(16) != 0) {
		*ret = *seeds[random_below((uint32_t) n_seeds)];
		for (uint32_t n = 1 + random_below(4); n; n--)
			mutate(ret);
		return;
	}
	ret->len = random_below(256);
	for (size_t i = 0; i < ret->len; i++)
		ret->at[i] = (uint8_t) random_below(256);
}

int main(int argc, char **argv)
{
	static struct input input;
	unsigned long runs = 0;

	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--runs=", 7) == 0)
			runs = strtoul(argv[i] + 7, NULL, 10);
		else if (strncmp(argv[i], "--seed=", 7) == 0)
			state = strtoul(argv[i] + 7, NULL, 10) | 1u << 31;
		else
			add(argv[i]);
	}
	for (size_t i = 0; i < n_seeds; i++)
		run(seeds[i]);
	for (unsigned long i = 0; i < runs; i++) {
		next_input(&input);
		run(&input);
	}
	printf("%zu files and %lu mutants of them held\n", n_seeds, runs);
	for (size_t i = 0; i < n_seeds; i++)
		free(seeds[i]);
	return 0;
}
