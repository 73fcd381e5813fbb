/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each command may be: the table, and the check that every request passes.
 *
 * The check decides, the action acts: command_check() is a pure function of the header and
 * the export's limits.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "wire/request.h"

struct slot;

struct command {
	const char *name;               /* for people: "read" */
	uint16_t flags;                 /* NBD_CMD_FLAG_* it may carry, besides FUA */
	bool changes;                   /* refused on a read-only export */
	bool grows;                     /* past the end means ENOSPC, not EINVAL */
	bool bounded;                   /* by NBD_MAX_PAYLOAD */
	bool takes_payload;
	bool zero_length;               /* nothing to do for length 0: succeeds at once */
	void (*start)(struct slot *slot);
};

/* What the check needs to know about the export and the client. */
struct command_limits {
	uint64_t size;                  /* bytes */
	uint16_t flags;                 /* NBD_FLAG_* as told to this client */
	enum nbd_mode mode;
	const char *shutdown;           /* a sentence why nothing is served any more, or NULL */
};

/* What to answer, and a sentence for structured replies; static, NULL with NBD_SUCCESS. */
struct verdict {
	enum nbd_error error;
	const char *sentence;
};

/* NULL for a type that we do not know, and for NBD_CMD_DISC, which is never answered. */
const struct command *command_find(uint16_t type);

/* The order of checks: length, payload, read-only, range, flags. */
struct verdict command_check(const struct command *cmd, const struct request *req,
                             const struct command_limits *limits);
