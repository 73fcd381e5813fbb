/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names and words are read by people and by their scripts: they stay as they are. */
#include "check.h"

#include "base/attr.h"
#include "wire/names.h"
#include "wire/nbd.h"
#include "wire/reason.h"

TEST(numbers_have_the_names_of_the_specification)
{
	CHECK_STR("", nbd_opt_name(1), "NBD_OPT_EXPORT_NAME");
	CHECK_STR("", nbd_opt_name(7), "NBD_OPT_GO");
	CHECK_STR("", nbd_opt_name(11), "NBD_OPT_EXTENDED_HEADERS");
	CHECK_STR("", nbd_rep_name(1), "NBD_REP_ACK");
	CHECK_STR("", nbd_rep_name(0x80000006u), "NBD_REP_ERR_UNKNOWN");
	CHECK_STR("", nbd_rep_name(0x8000000au), "NBD_REP_ERR_EXT_HEADER_REQD");
	CHECK_STR("", nbd_info_name(3), "NBD_INFO_BLOCK_SIZE");
	CHECK_STR("", nbd_cmd_name(0), "NBD_CMD_READ");
	CHECK_STR("", nbd_cmd_name(7), "NBD_CMD_BLOCK_STATUS");
	CHECK_STR("", nbd_error_name(0), "NBD_SUCCESS");
	CHECK_STR("", nbd_error_name(22), "NBD_EINVAL");
	CHECK_STR("", nbd_error_name(108), "NBD_ESHUTDOWN");
	CHECK_STR("", nbd_chunk_name(0x8001), "NBD_REPLY_TYPE_ERROR");
	CHECK_STR("", nbd_chunk_name(6), "NBD_REPLY_TYPE_BLOCK_STATUS_EXT");
	CHECK_STR("", nbd_mode_name(0), "simple");
	CHECK_STR("", nbd_mode_name(2), "extended");
}

TEST(other_numbers_are_unknown)
{
	CHECK_STR("", nbd_opt_name(0), "unknown");
	CHECK_STR("", nbd_opt_name(12), "unknown");
	CHECK_STR("", nbd_opt_name(0xffffffffu), "unknown");
	CHECK_STR("", nbd_rep_name(0x80000000u), "unknown");
	CHECK_STR("", nbd_info_name(4), "unknown");
	CHECK_STR("", nbd_cmd_name(0xffff), "unknown");
	CHECK_STR("", nbd_error_name(2), "unknown");
	CHECK_STR("", nbd_chunk_name(3), "unknown");
	CHECK_STR("", nbd_mode_name(N_NBD_MODES), "unknown");
}

TEST(reasons_keep_their_words)
{
	static const char *const words[] = {
		"none", "export-unknown", "export-gone", "offer-stale", "no-slot", "start-failed",
		"start-slow", "shutdown", "protocol", "deadline", "limit", "token-unknown",
		"stalled", "peer-gone", "disconnect", "device", "kicked", "no-access",
		"tls-handshake-failed", "tls-untrusted", "tls-timeout", "tls-cut", "tls-broken",
		"tls-unavailable", "tls-required", "single-writer", "resized",
	};

	CHECK_EQ("", N_REASONS, ARRAY_LEN(words));
	for (uint32_t i = 0; i < ARRAY_LEN(words); i++)
		CHECK_STR("", reason_word(i), words[i]);
	CHECK_STR("", reason_word(N_REASONS), "unknown");
	CHECK_STR("", reason_word(0xffffffffu), "unknown");
}
