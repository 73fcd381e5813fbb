/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages between threads: a queue with an eventfd that becomes readable.
 *
 * Any thread posts; one thread, the mailbox's owner, waits for the descriptor and
 * runs the letters, in the order in which they came.  A letter lives inside the object it is
 * about, belongs to the mailbox from mailbox_post() until its `open` is called, and is
 * in one mailbox at most, once.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "base/failure.h"

struct letter {
	struct letter *next;
	void (*open)(struct letter *letter);
	_Atomic bool posted;            /* the mailbox's: it was not opened yet */
};

struct mailbox {
	pthread_mutex_t lock;
	struct letter *first, **end;
	int event;                      /* eventfd, non-blocking; ours */
};

int mailbox_init(struct mailbox *box, struct failure *why);
void mailbox_deinit(struct mailbox *box);

/* Wakes the owner only when the box was empty: a burst costs one system call. */
void mailbox_post(struct mailbox *box, struct letter *letter);

/* For a letter that only says "look", and whose `open` never changes: one that was posted and not
 * opened yet will do.  Whoever opens it sees what was written before this call. */
void mailbox_post_once(struct mailbox *box, struct letter *letter);

/* Runs what has come, after the owner saw the descriptor readable (and read it, or not). */
void mailbox_empty(struct mailbox *box);
