/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/mailbox.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int mailbox_init(struct mailbox *box, struct failure *why)
{
	*box = (struct mailbox) { .lock = PTHREAD_MUTEX_INITIALIZER };
	box->end = &box->first;
	box->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (box->event < 0)
		return fail(why, errno, "cannot make an eventfd");
	return 0;
}

void mailbox_deinit(struct mailbox *box)
{
	close_fd(&box->event);
}

static void append(struct mailbox *box, struct letter *letter)
{
	bool was_empty;

	assert(letter->open);
	letter->next = NULL;

	pthread_mutex_lock(&box->lock);
	was_empty = !box->first;
	*box->end = letter;
	box->end = &letter->next;
	pthread_mutex_unlock(&box->lock);

	/* Only a counter near 2^64 could refuse this, and one letter counts once. */
	if (was_empty)
		(void) !write(box->event, &(uint64_t) { 1 }, sizeof(uint64_t));
}

void mailbox_post(struct mailbox *box, struct letter *letter)
{
	bool posted = atomic_exchange(&letter->posted, true);

	assert(!posted);
	(void) posted;
	append(box, letter);
}

void mailbox_post_once(struct mailbox *box, struct letter *letter)
{
	if (!atomic_exchange(&letter->posted, true))
		append(box, letter);
}

void mailbox_empty(struct mailbox *box)
{
	struct letter *letter, *next;

	/* Reset first: a letter posted after the queue was taken rings again. */
	(void) !read(box->event, &(uint64_t) { 0 }, sizeof(uint64_t));

	pthread_mutex_lock(&box->lock);
	letter = box->first;
	box->first = NULL;
	box->end = &box->first;
	pthread_mutex_unlock(&box->lock);

	for (; letter; letter = next) {
		next = letter->next;    /* the letter may be gone after it is opened */
		(void) atomic_exchange(&letter->posted, false);
		letter->open(letter);
	}
}
