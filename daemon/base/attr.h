/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compiler attributes and scope cleanup, the one set that the whole tree uses.
 *
 * AUTO_FD closes a descriptor when its variable leaves scope; take_fd() moves
 * the descriptor out, so that the new owner closes it.  AUTO_FREE does the same
 * for memory, with take_ptr().
 */
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define MUST_USE __attribute__((warn_unused_result))
#define ARRAY_LEN(a) (sizeof(a) / sizeof *(a))

/* The object that holds `member` at `ptr`. */
#define container_of(ptr, type, member) ((type *) ((char *) (ptr) - offsetof(type, member)))

/* Closes *fd and marks it closed; errno stays what it was.  -1 is no descriptor. */
void close_fd(int *fd);

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

static inline void free_pointer(void *at)
{
	void **p = at;

	free(*p);
	*p = NULL;
}

#define take_ptr(p)                                                           \
	({                                                                    \
		typeof(p) *where_ = &(p);                                     \
		typeof(p) taken_ = *where_;                                   \
		*where_ = NULL;                                               \
		taken_;                                                       \
	})

#define AUTO_FD __attribute__((cleanup(close_fd))) int
#define AUTO_FREE __attribute__((cleanup(free_pointer)))
