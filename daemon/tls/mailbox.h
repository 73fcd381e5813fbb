/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Letters from any thread to one: posted without waiting, in order, never refused.
 */
#pragma once

#include <pthread.h>
#include <sys/queue.h>

#include "base/failure.h"

struct letter {
	STAILQ_ENTRY(letter) next;      /* the mailbox's, from post() to collect() */
};

STAILQ_HEAD(letters, letter);

struct mailbox {
	pthread_mutex_t lock;
	struct letters letters;
	int fd;                         /* an eventfd, readable while there are any */
};

int mailbox_init(struct mailbox *box, struct failure *why);
void mailbox_clear(struct mailbox *box);

void mailbox_post(struct mailbox *box, struct letter *letter);

/* Takes all letters, the oldest first; `ret` is initialized here. */
void mailbox_collect(struct mailbox *box, struct letters *ret);
