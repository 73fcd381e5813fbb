/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The protocol's numbers by the names the specification gives them, for logs and people.
 * Never NULL: "unknown" for a number that has no name. */
#pragma once

#include <stdint.h>

const char *nbd_opt_name(uint32_t option);      /* "NBD_OPT_GO" */
const char *nbd_rep_name(uint32_t reply);       /* "NBD_REP_ERR_UNKNOWN" */
const char *nbd_info_name(uint16_t info);       /* "NBD_INFO_EXPORT" */
const char *nbd_cmd_name(uint16_t type);        /* "NBD_CMD_READ" */
const char *nbd_error_name(uint32_t error);     /* "NBD_EINVAL" */
const char *nbd_chunk_name(uint16_t type);      /* "NBD_REPLY_TYPE_ERROR" */
const char *nbd_mode_name(unsigned mode);       /* "simple", "structured", "extended" */
