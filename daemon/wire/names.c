/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Number to name.  Each row spells its number once, so that name and number cannot
 * disagree; the tables are short and read for logs only, so they are searched in order.
 */
#include "wire/names.h"

#include <stddef.h>

#include "base/attr.h"
#include "wire/nbd.h"

struct name {
	uint32_t number;
	const char *text;
};

#define NAME(number) { (uint32_t) (number), #number }

static const struct name opts[] = {
	NAME(NBD_OPT_EXPORT_NAME),
	NAME(NBD_OPT_ABORT),
	NAME(NBD_OPT_LIST),
	NAME(NBD_OPT_PEEK_EXPORT),
	NAME(NBD_OPT_STARTTLS),
	NAME(NBD_OPT_INFO),
	NAME(NBD_OPT_GO),
	NAME(NBD_OPT_STRUCTURED_REPLY),
	NAME(NBD_OPT_LIST_META_CONTEXT),
	NAME(NBD_OPT_SET_META_CONTEXT),
	NAME(NBD_OPT_EXTENDED_HEADERS),
};

static const struct name reps[] = {
	NAME(NBD_REP_ACK),
	NAME(NBD_REP_SERVER),
	NAME(NBD_REP_INFO),
	NAME(NBD_REP_META_CONTEXT),
	NAME(NBD_REP_ERR_UNSUP),
	NAME(NBD_REP_ERR_POLICY),
	NAME(NBD_REP_ERR_INVALID),
	NAME(NBD_REP_ERR_PLATFORM),
	NAME(NBD_REP_ERR_TLS_REQD),
	NAME(NBD_REP_ERR_UNKNOWN),
	NAME(NBD_REP_ERR_SHUTDOWN),
	NAME(NBD_REP_ERR_BLOCK_SIZE_REQD),
	NAME(NBD_REP_ERR_TOO_BIG),
	NAME(NBD_REP_ERR_EXT_HEADER_REQD),
};

static const struct name infos[] = {
	NAME(NBD_INFO_EXPORT),
	NAME(NBD_INFO_NAME),
	NAME(NBD_INFO_DESCRIPTION),
	NAME(NBD_INFO_BLOCK_SIZE),
};

static const struct name cmds[] = {
	NAME(NBD_CMD_READ),
	NAME(NBD_CMD_WRITE),
	NAME(NBD_CMD_DISC),
	NAME(NBD_CMD_FLUSH),
	NAME(NBD_CMD_TRIM),
	NAME(NBD_CMD_CACHE),
	NAME(NBD_CMD_WRITE_ZEROES),
	NAME(NBD_CMD_BLOCK_STATUS),
	NAME(NBD_CMD_RESIZE),
};

static const struct name errors[] = {
	NAME(NBD_SUCCESS),
	NAME(NBD_EPERM),
	NAME(NBD_EIO),
	NAME(NBD_ENOMEM),
	NAME(NBD_EINVAL),
	NAME(NBD_ENOSPC),
	NAME(NBD_EOVERFLOW),
	NAME(NBD_ENOTSUP),
	NAME(NBD_ESHUTDOWN),
};

static const struct name chunks[] = {
	NAME(NBD_REPLY_TYPE_NONE),
	NAME(NBD_REPLY_TYPE_OFFSET_DATA),
	NAME(NBD_REPLY_TYPE_OFFSET_HOLE),
	NAME(NBD_REPLY_TYPE_BLOCK_STATUS),
	NAME(NBD_REPLY_TYPE_BLOCK_STATUS_EXT),
	NAME(NBD_REPLY_TYPE_ERROR),
	NAME(NBD_REPLY_TYPE_ERROR_OFFSET),
};

static const struct name modes[] = {
	{ NBD_MODE_SIMPLE, "simple" },
	{ NBD_MODE_STRUCTURED, "structured" },
	{ NBD_MODE_EXTENDED, "extended" },
};

#undef NAME

static const char *find(const struct name *table, size_t n, uint32_t number)
{
	for (size_t i = 0; i < n; i++)
		if (table[i].number == number)
			return table[i].text;
	return "unknown";
}

const char *nbd_opt_name(uint32_t option)
{
	return find(opts, ARRAY_LEN(opts), option);
}

const char *nbd_rep_name(uint32_t reply)
{
	return find(reps, ARRAY_LEN(reps), reply);
}

const char *nbd_info_name(uint16_t info)
{
	return find(infos, ARRAY_LEN(infos), info);
}

const char *nbd_cmd_name(uint16_t type)
{
	return find(cmds, ARRAY_LEN(cmds), type);
}

const char *nbd_error_name(uint32_t error)
{
	return find(errors, ARRAY_LEN(errors), error);
}

const char *nbd_chunk_name(uint16_t type)
{
	return find(chunks, ARRAY_LEN(chunks), type);
}

const char *nbd_mode_name(unsigned mode)
{
	return find(modes, ARRAY_LEN(modes), mode);
}
