/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device's operations as blocking system calls: for the threads of one engine, and for
 * devices that answer before another thread could.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/attr.h"
#include "export/engine.h"

static ssize_t perform_read(const struct op *op)
{
	return pread(op->fd, op->at, op->length, (off_t) op->offset);
}

static ssize_t perform_write(const struct op *op)
{
	struct iovec iov = { op->at, op->length };

	return pwritev2(op->fd, &iov, 1, (off_t) op->offset, op->flags);
}

static ssize_t perform_sync(const struct op *op)
{
	return fdatasync(op->fd);
}

static ssize_t perform_allocate(const struct op *op)
{
	return fallocate(op->fd, op->flags, (off_t) op->offset, (off_t) op->length);
}

static ssize_t perform_advise(const struct op *op)
{
	errno = posix_fadvise(op->fd, (off_t) op->offset, (off_t) op->length, op->flags);
	return errno ? -1 : 0;
}

static ssize_t (*const performers[])(const struct op *op) = {
	[OP_READ] = perform_read,
	[OP_WRITE] = perform_write,
	[OP_SYNC] = perform_sync,
	[OP_ALLOCATE] = perform_allocate,
	[OP_ADVISE] = perform_advise,
};

int op_perform(const struct op *op)
{
	ssize_t n = performers[op->kind](op);

	return n < 0 ? -errno : (int) n;
}
