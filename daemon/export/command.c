/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/command.h"

#include <stddef.h>

#include "base/attr.h"
#include "export/actions.h"

static const struct command commands[] = {
	[NBD_CMD_READ] = { "read", .flags = NBD_CMD_FLAG_DF, .bounded = true,
	                   .zero_length = true, .start = start_read },
	[NBD_CMD_WRITE] = { "write", .changes = true, .grows = true, .bounded = true,
	                    .takes_payload = true, .zero_length = true },
	[NBD_CMD_FLUSH] = { "flush", .start = start_flush },
	[NBD_CMD_TRIM] = { "trim", .changes = true, .zero_length = true, .start = start_trim },
	[NBD_CMD_CACHE] = { "cache", .bounded = true, .zero_length = true, .start = start_cache },
	[NBD_CMD_WRITE_ZEROES] = { "write-zeroes",
	                           .flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
	                           .changes = true, .grows = true, .zero_length = true,
	                           .start = start_write_zeroes },
	[NBD_CMD_BLOCK_STATUS] = { "block-status", .flags = NBD_CMD_FLAG_REQ_ONE,
	                           .takes_payload = true, .start = start_block_status },
};

const struct command *command_find(uint16_t type)
{
	if (type >= ARRAY_LEN(commands) || !commands[type].name)
		return NULL;
	return &commands[type];
}

/* Flags that depend on what was negotiated.  A payload that BLOCK_STATUS may not have
 * was drained by then, and fails here. */
static uint16_t allowed_flags(const struct command *cmd, const struct command_limits *limits)
{
	unsigned allowed = cmd->flags | NBD_CMD_FLAG_FUA;

	if (limits->mode < NBD_MODE_STRUCTURED)
		allowed &= ~NBD_CMD_FLAG_DF;
	if (limits->mode == NBD_MODE_EXTENDED && cmd->takes_payload)
		allowed |= NBD_CMD_FLAG_PAYLOAD_LEN;
	return (uint16_t) allowed;
}

/* Subtracts from the size and never adds to the offset, so nothing can wrap. */
static bool in_range(const struct request *req, uint64_t size)
{
	return req->offset <= size && req->length <= size - req->offset;
}

struct verdict command_check(const struct command *cmd, const struct request *req,
                             const struct command_limits *limits)
{
	if (limits->shutdown)
		return (struct verdict) { NBD_ESHUTDOWN, limits->shutdown };
	if (!cmd)
		return (struct verdict) { NBD_EINVAL, "unknown command" };
	if (cmd->bounded && req->length > NBD_MAX_PAYLOAD)
		return (struct verdict) { NBD_EINVAL, "longer than 32 MiB" };
	if (cmd->changes && limits->flags & NBD_FLAG_READ_ONLY)
		return (struct verdict) { NBD_EPERM, "the export is read-only" };
	if (!in_range(req, limits->size))
		return (struct verdict) { cmd->grows ? NBD_ENOSPC : NBD_EINVAL,
		                          "past the end of the export" };
	if (req->flags & ~allowed_flags(cmd, limits))
		return (struct verdict) { NBD_EINVAL, "a flag that this command does not have here" };
	return (struct verdict) { NBD_SUCCESS, NULL };
}
