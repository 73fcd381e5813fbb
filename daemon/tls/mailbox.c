/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tls/mailbox.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>

int mailbox_init(struct mailbox *box, struct failure *why)
{
	STAILQ_INIT(&box->letters);
	pthread_mutex_init(&box->lock, NULL);
	box->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return box->fd < 0 ? fail(why, errno, "cannot make a mailbox") : 0;
}

void mailbox_clear(struct mailbox *box)
{
	close_fd(&box->fd);
	pthread_mutex_destroy(&box->lock);
}

void mailbox_post(struct mailbox *box, struct letter *letter)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&box->lock);
	STAILQ_INSERT_TAIL(&box->letters, letter, next);
	pthread_mutex_unlock(&box->lock);
	if (write(box->fd, &one, sizeof one) < 0)
		return;                 /* it is readable already */
}

/* The counter first: a letter that comes between the two is collected, and rings once more. */
void mailbox_collect(struct mailbox *box, struct letters *ret)
{
	uint64_t n;

	STAILQ_INIT(ret);
	if (read(box->fd, &n, sizeof n) < 0)
		n = 0;
	pthread_mutex_lock(&box->lock);
	STAILQ_CONCAT(ret, &box->letters);
	pthread_mutex_unlock(&box->lock);
}
