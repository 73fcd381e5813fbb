/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/durability.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* An attribute of the queue that a device or a partition has. */
static bool read_queue(dev_t rdev, const char *attribute, char *ret, size_t size)
{
	static const char *const ways[] = { "", "../" };

	for (size_t i = 0; i < 2; i++) {
		char path[96];
		FILE *file;
		bool good;

		(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%squeue/%s", major(rdev),
		                minor(rdev), ways[i], attribute);
		file = fopen(path, "re");
		if (!file)
			continue;
		good = fgets(ret, (int) size, file) != NULL;
		(void) fclose(file);
		ret[good ? strcspn(ret, "\n") : 0] = '\0';
		return good;
	}
	return false;
}

static const char *words_of_block_device(dev_t rdev, const bool *write_cache)
{
	char text[32];
	bool caches;

	if (write_cache)
		caches = *write_cache;
	else if (read_queue(rdev, "write_cache", text, sizeof text))
		caches = strcmp(text, "write back") == 0;
	else
		return "";
	if (!caches)
		return "no volatile write cache: a write that has ended is on media, and FLUSH and "
		       "FUA need nothing more";
	if (read_queue(rdev, "fua", text, sizeof text) && strcmp(text, "1") == 0)
		return "volatile write cache: FLUSH empties it, FUA writes through it";
	return "volatile write cache: FLUSH empties it, FUA writes and then empties it";
}

void durability_words(const char *device, const bool *write_cache, char *ret, size_t size)
{
	const char *words = "";
	struct stat st;

	if (stat(device, &st) == 0) {
		if (S_ISREG(st.st_mode))
			words = "a file: FLUSH and FUA sync it, as its file system and that one's "
			        "device do";
		else if (S_ISBLK(st.st_mode))
			words = words_of_block_device(st.st_rdev, write_cache);
	}
	(void) snprintf(ret, size, "%s", words);
}
