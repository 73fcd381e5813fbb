/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The protocol's numbers, grouped as in the specification (doc/proto.md of the
 * NetworkBlockDevice project; extended headers from its extension of that name).
 * Every number is big-endian on the wire.
 */
#pragma once

#include <stdint.h>

/* Handshake: the greeting */
#define NBD_MAGIC 0x4e42444d41474943ull         /* "NBDMAGIC" */
#define NBD_OPTS_MAGIC 0x49484156454f5054ull    /* "IHAVEOPT", both directions */
#define NBD_REP_MAGIC 0x0003e889045565a9ull

#define NBD_FLAG_FIXED_NEWSTYLE (1u << 0)       /* handshake flags, server to client */
#define NBD_FLAG_NO_ZEROES (1u << 1)
#define NBD_FLAG_C_FIXED_NEWSTYLE (1u << 0)     /* client flags */
#define NBD_FLAG_C_NO_ZEROES (1u << 1)

#define NBD_GREETING_SIZE 18u
#define NBD_CLIENT_FLAGS_SIZE 4u
#define NBD_OPTION_HEADER_SIZE 16u
#define NBD_OPTION_REPLY_HEADER_SIZE 20u
#define NBD_EXPORT_NAME_REPLY_SIZE 10u          /* and 124 zero bytes unless NO_ZEROES */
#define NBD_EXPORT_NAME_ZEROES 124u

#define NBD_MAX_STRING 4096u                    /* bytes of any name or description */
#define NBD_MAX_OPTION (32u << 20)              /* bytes of one option's payload */
#define NBD_MAX_PAYLOAD (32u << 20)             /* bytes of one request's or chunk's data */

/* Option types */
enum nbd_opt {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_PEEK_EXPORT = 4,                /* withdrawn */
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

/* Option reply types */
#define NBD_REP_ERROR_BIT 0x80000000u
enum nbd_rep {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,
	NBD_REP_INFO = 3,
	NBD_REP_META_CONTEXT = 4,
	NBD_REP_ERR_UNSUP = (int) (NBD_REP_ERROR_BIT | 1),
	NBD_REP_ERR_POLICY = (int) (NBD_REP_ERROR_BIT | 2),
	NBD_REP_ERR_INVALID = (int) (NBD_REP_ERROR_BIT | 3),
	NBD_REP_ERR_PLATFORM = (int) (NBD_REP_ERROR_BIT | 4),
	NBD_REP_ERR_TLS_REQD = (int) (NBD_REP_ERROR_BIT | 5),
	NBD_REP_ERR_UNKNOWN = (int) (NBD_REP_ERROR_BIT | 6),
	NBD_REP_ERR_SHUTDOWN = (int) (NBD_REP_ERROR_BIT | 7),
	NBD_REP_ERR_BLOCK_SIZE_REQD = (int) (NBD_REP_ERROR_BIT | 8),
	NBD_REP_ERR_TOO_BIG = (int) (NBD_REP_ERROR_BIT | 9),
	NBD_REP_ERR_EXT_HEADER_REQD = (int) (NBD_REP_ERROR_BIT | 10),
};

/* Information types of NBD_OPT_INFO and NBD_OPT_GO */
enum nbd_info {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

/* Transmission flags */
#define NBD_FLAG_HAS_FLAGS (1u << 0)
#define NBD_FLAG_READ_ONLY (1u << 1)
#define NBD_FLAG_SEND_FLUSH (1u << 2)
#define NBD_FLAG_SEND_FUA (1u << 3)
#define NBD_FLAG_ROTATIONAL (1u << 4)
#define NBD_FLAG_SEND_TRIM (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define NBD_FLAG_SEND_DF (1u << 7)
#define NBD_FLAG_CAN_MULTI_CONN (1u << 8)
#define NBD_FLAG_SEND_RESIZE (1u << 9)
#define NBD_FLAG_SEND_CACHE (1u << 10)
#define NBD_FLAG_SEND_FAST_ZERO (1u << 11)
#define NBD_FLAG_BLOCK_STAT_PAYLOAD (1u << 12)

/* How the transmission phase speaks; the order matters, each includes the one before. */
enum nbd_mode {
	NBD_MODE_SIMPLE = 0,
	NBD_MODE_STRUCTURED = 1,
	NBD_MODE_EXTENDED = 2,
	N_NBD_MODES,
};

/* Requests */
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_EXTENDED_REQUEST_MAGIC 0x21e41c71u
#define NBD_REQUEST_SIZE 28u
#define NBD_EXTENDED_REQUEST_SIZE 32u

enum nbd_cmd {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
	NBD_CMD_RESIZE = 8,                     /* withdrawn */
};

#define NBD_CMD_FLAG_FUA (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE (1u << 1)
#define NBD_CMD_FLAG_DF (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE (1u << 3)
#define NBD_CMD_FLAG_FAST_ZERO (1u << 4)
#define NBD_CMD_FLAG_PAYLOAD_LEN (1u << 5)

/* Replies */
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu
#define NBD_EXTENDED_REPLY_MAGIC 0x6e8a278cu
#define NBD_SIMPLE_REPLY_SIZE 16u
#define NBD_STRUCTURED_CHUNK_SIZE 20u
#define NBD_EXTENDED_CHUNK_SIZE 32u

#define NBD_REPLY_FLAG_DONE (1u << 0)

#define NBD_REPLY_ERROR_BIT 0x8000u
enum nbd_chunk {
	NBD_REPLY_TYPE_NONE = 0,
	NBD_REPLY_TYPE_OFFSET_DATA = 1,
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,
	NBD_REPLY_TYPE_BLOCK_STATUS = 5,
	NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6,
	NBD_REPLY_TYPE_ERROR = NBD_REPLY_ERROR_BIT | 1,
	NBD_REPLY_TYPE_ERROR_OFFSET = NBD_REPLY_ERROR_BIT | 2,
};

/* Error values in replies */
enum nbd_error {
	NBD_SUCCESS = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* Metadata contexts.  The identifiers are ours to choose (QEMU's are the same). */
#define NBD_CONTEXT_BASE_ALLOCATION "base:allocation"
#define NBD_CONTEXT_ALLOCATION_DEPTH "qemu:allocation-depth"
#define NBD_CONTEXT_DIRTY_BITMAP "qemu:dirty-bitmap:"    /* and the bitmap's name */
#define NBD_CONTEXT_ID_BASE_ALLOCATION 0u
#define NBD_CONTEXT_ID_ALLOCATION_DEPTH 1u
#define NBD_CONTEXT_ID_DIRTY_BITMAP 2u                   /* and 3, 4, ... */
#define NBD_MAX_CONTEXTS 64u                             /* of one export; our own limit */

#define NBD_STATE_HOLE (1u << 0)                         /* of base:allocation */
#define NBD_STATE_ZERO (1u << 1)
#define NBD_STATE_DIRTY (1u << 0)                        /* of qemu:dirty-bitmap: */

#define NBD_MAX_EXTENTS 131072u         /* a context in one reply; 1 MiB, as QEMU bounds it */
