/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/mappings.h"

#include <stdlib.h>
#include <sys/mman.h>

struct mapping {
	struct mapping *next;
	void *at;
	size_t size;
};

void *mappings_add(struct mappings *mappings, size_t size)
{
	struct mapping *m = malloc(sizeof *m);

	if (!m)
		return NULL;
	*m = (struct mapping) { .next = mappings->first, .size = size };
	m->at = mmap(NULL, size, PROT_READ | PROT_WRITE,
	             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->at == MAP_FAILED) {
		free(m);
		return NULL;
	}
	(void) madvise(m->at, size, MADV_NOHUGEPAGE);
	mappings->first = m;
	return m->at;
}

void mappings_clear(struct mappings *mappings)
{
	struct mapping *m, *next;

	for (m = mappings->first; m; m = next) {
		next = m->next;
		(void) munmap(m->at, m->size);
		free(m);
	}
	mappings->first = NULL;
}
