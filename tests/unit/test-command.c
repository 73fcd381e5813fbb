/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every request is checked for, and which fault is told when there are several. */
#include "check.h"

#include <inttypes.h>

#include "base/attr.h"
#include "export/command.h"

#define SIZE (1ull << 30)
#define STRUCTURED_ON (1u << NBD_MODE_STRUCTURED | 1u << NBD_MODE_EXTENDED)
#define EXTENDED_ONLY (1u << NBD_MODE_EXTENDED)

struct row {
	uint16_t type;
	const char *name;
	uint16_t flags;                 /* that it may carry in every mode */
	uint16_t later_flag;            /* one more, in the modes of `later_modes` */
	unsigned later_modes;
	enum nbd_error past_end;
	bool changes, bounded;
};

/* Written from the specification, not from the table under test. */
static const struct row rows[] = {
	{ NBD_CMD_READ, "read", NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_DF, STRUCTURED_ON,
	  NBD_EINVAL, .bounded = true },
	{ NBD_CMD_WRITE, "write", NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_PAYLOAD_LEN, EXTENDED_ONLY,
	  NBD_ENOSPC, .changes = true, .bounded = true },
	{ NBD_CMD_FLUSH, "flush", NBD_CMD_FLAG_FUA, 0, 0, NBD_EINVAL },
	{ NBD_CMD_TRIM, "trim", NBD_CMD_FLAG_FUA, 0, 0, NBD_EINVAL, .changes = true },
	{ NBD_CMD_CACHE, "cache", NBD_CMD_FLAG_FUA, 0, 0, NBD_EINVAL, .bounded = true },
	{ NBD_CMD_WRITE_ZEROES, "write-zeroes",
	  NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, 0, 0,
	  NBD_ENOSPC, .changes = true },
	{ NBD_CMD_BLOCK_STATUS, "block-status", NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE,
	  NBD_CMD_FLAG_PAYLOAD_LEN, EXTENDED_ONLY, NBD_EINVAL },
};

static const struct command_limits simple = { .size = SIZE, .flags = NBD_FLAG_HAS_FLAGS };
static const struct command_limits read_only = {
	.size = SIZE, .flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY,
};

static struct verdict check_request(const struct row *row, uint16_t flags, uint64_t offset,
                                    uint64_t length, const struct command_limits *limits)
{
	struct request req = {
		.type = row->type, .flags = flags, .offset = offset, .length = length,
	};
	struct verdict v = command_check(command_find(row->type), &req, limits);

	CHECK_EQ(row->name, v.sentence == NULL, v.error == NBD_SUCCESS);
	return v;
}

static void expect(const struct row *row, uint64_t offset, uint64_t length,
                   const struct command_limits *limits, enum nbd_error want)
{
	char where[100];

	(void) snprintf(where, sizeof where, "%s at %#" PRIx64 " + %#" PRIx64, row->name, offset,
	                length);
	CHECK_EQ(where, check_request(row, 0, offset, length, limits).error, want);
}

static bool is_known(unsigned type)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].type == type)
			return true;
	return false;
}

TEST(every_command_has_its_row_and_no_other_type_has_one)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct command *cmd = command_find(rows[i].type);

		CHECK(cmd);
		if (!cmd)
			continue;
		CHECK_STR(rows[i].name, cmd->name, rows[i].name);
		/* The data of a WRITE starts it, piece by piece. */
		CHECK_EQ(rows[i].name, !cmd->start, rows[i].type == NBD_CMD_WRITE);
	}
	for (unsigned type = 0; type <= UINT16_MAX; type++)
		CHECK_EQ("known", command_find((uint16_t) type) != NULL, is_known(type));
}

TEST(only_write_and_block_status_bring_a_payload)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		CHECK_EQ(rows[i].name, command_find(rows[i].type)->takes_payload,
		         rows[i].type == NBD_CMD_WRITE || rows[i].type == NBD_CMD_BLOCK_STATUS);
}

/* FLUSH has no length, and BLOCK_STATUS of nothing is a fault of its own. */
TEST(a_length_of_zero_ends_at_once_what_has_a_length)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		CHECK_EQ(rows[i].name, command_find(rows[i].type)->zero_length,
		         rows[i].type != NBD_CMD_FLUSH && rows[i].type != NBD_CMD_BLOCK_STATUS);
}

static void check_flags(const struct row *row, enum nbd_mode mode)
{
	struct command_limits limits = simple;
	unsigned allowed = row->flags;
	char where[64];

	limits.mode = mode;
	if (row->later_modes & 1u << mode)
		allowed |= row->later_flag;
	/* All combinations of the six flags there are, then each bit that has no meaning. */
	for (unsigned flags = 0; flags < 64; flags++) {
		(void) snprintf(where, sizeof where, "%s mode %d flags %#x", row->name, (int) mode,
		                flags);
		CHECK_EQ(where, check_request(row, (uint16_t) flags, 0, 4096, &limits).error,
		         flags & ~allowed ? NBD_EINVAL : NBD_SUCCESS);
	}
	for (unsigned bit = 6; bit < 16; bit++) {
		(void) snprintf(where, sizeof where, "%s mode %d bit %u", row->name, (int) mode,
		                bit);
		CHECK_EQ(where, check_request(row, (uint16_t) (1u << bit), 0, 4096, &limits).error,
		         NBD_EINVAL);
	}
}

TEST(a_command_carries_its_own_flags_only_in_each_mode)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		for (int mode = 0; mode < N_NBD_MODES; mode++)
			check_flags(&rows[i], (enum nbd_mode) mode);
}

TEST(a_range_ends_at_the_end_of_the_export_and_not_behind_it)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct row *row = &rows[i];

		expect(row, 0, 0, &simple, NBD_SUCCESS);
		expect(row, 0, 4096, &simple, NBD_SUCCESS);
		expect(row, SIZE - 1, 1, &simple, NBD_SUCCESS);
		expect(row, SIZE - 4096, 4096, &simple, NBD_SUCCESS);
		expect(row, SIZE, 0, &simple, NBD_SUCCESS);
		expect(row, SIZE, 1, &simple, row->past_end);
		expect(row, SIZE - 1, 2, &simple, row->past_end);
		expect(row, SIZE - 4096, 4097, &simple, row->past_end);
		expect(row, SIZE + 1, 0, &simple, row->past_end);
	}
}

/* Each sum wraps to something inside the export. */
TEST(offsets_near_the_end_of_the_numbers_do_not_wrap)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct row *row = &rows[i];
		enum nbd_error huge = row->bounded ? NBD_EINVAL : row->past_end;

		expect(row, UINT64_MAX, 0, &simple, row->past_end);
		expect(row, UINT64_MAX, 1, &simple, row->past_end);
		expect(row, UINT64_MAX, 4096, &simple, row->past_end);
		expect(row, UINT64_MAX - 4095, 4096, &simple, row->past_end);
		expect(row, UINT64_MAX - 4095, 8192, &simple, row->past_end);
		expect(row, 1ull << 63, NBD_MAX_PAYLOAD, &simple, row->past_end);
		expect(row, 1, UINT64_MAX, &simple, huge);
		expect(row, 4096, UINT64_MAX - 4095, &simple, huge);
		expect(row, UINT64_MAX, UINT64_MAX, &simple, huge);
		expect(row, 1ull << 63, 1ull << 63, &simple, huge);
	}
}

TEST(what_needs_a_buffer_is_at_most_32_mib_long)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum nbd_error longer = rows[i].bounded ? NBD_EINVAL : NBD_SUCCESS;

		expect(&rows[i], 0, NBD_MAX_PAYLOAD, &simple, NBD_SUCCESS);
		expect(&rows[i], 0, NBD_MAX_PAYLOAD + 1, &simple, longer);
		expect(&rows[i], 0, SIZE, &simple, longer);
	}
}

TEST(an_effect_without_data_may_be_longer_than_4_gib)
{
	struct command_limits limits = { .size = INT64_MAX, .mode = NBD_MODE_EXTENDED };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		expect(&rows[i], 0, INT64_MAX, &limits, rows[i].bounded ? NBD_EINVAL : NBD_SUCCESS);
		expect(&rows[i], 1, INT64_MAX, &limits,
		       rows[i].bounded ? NBD_EINVAL : rows[i].past_end);
	}
}

TEST(a_read_only_export_refuses_every_change_and_nothing_else)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum nbd_error want = rows[i].changes ? NBD_EPERM : NBD_SUCCESS;

		expect(&rows[i], 0, 4096, &read_only, want);
		expect(&rows[i], 0, 0, &read_only, want);
	}
}

TEST(a_draining_export_refuses_everything_whatever_else_is_wrong)
{
	struct command_limits limits = read_only;
	struct request req = { .type = 99, .offset = UINT64_MAX, .length = UINT64_MAX };

	limits.shutdown = "the export is being stopped";
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		expect(&rows[i], 0, 4096, &limits, NBD_ESHUTDOWN);
		expect(&rows[i], UINT64_MAX, UINT64_MAX, &limits, NBD_ESHUTDOWN);
	}
	CHECK_EQ("unknown", command_check(NULL, &req, &limits).error, NBD_ESHUTDOWN);
}

TEST(an_unknown_command_is_invalid_whatever_else_is_wrong)
{
	struct request req = { .type = 99, .flags = 0xffff, .offset = UINT64_MAX, .length = 1 };

	CHECK_EQ("unknown", command_check(NULL, &req, &simple).error, NBD_EINVAL);
	CHECK_EQ("unknown", command_check(NULL, &req, &read_only).error, NBD_EINVAL);
	CHECK_STR("unknown", command_check(NULL, &req, &read_only).sentence, "unknown command");
}

/* Too long, then read-only, then past the end, then a flag: the sentence tells which it was. */
TEST(of_several_faults_the_first_in_order_is_told)
{
	const struct row *write = &rows[1];
	const uint16_t bad = NBD_CMD_FLAG_REQ_ONE;
	struct {
		const char *where;
		struct verdict got;
		enum nbd_error error;
		const char *sentence;
	} cases[] = {
		{ "all", check_request(write, bad, SIZE, NBD_MAX_PAYLOAD + 1, &read_only),
		  NBD_EINVAL, "longer than 32 MiB" },
		{ "read-only, range, flag", check_request(write, bad, SIZE, 1, &read_only),
		  NBD_EPERM, "the export is read-only" },
		{ "read-only, flag", check_request(write, bad, 0, 1, &read_only),
		  NBD_EPERM, "the export is read-only" },
		{ "length, range", check_request(write, 0, SIZE, NBD_MAX_PAYLOAD + 1, &simple),
		  NBD_EINVAL, "longer than 32 MiB" },
		{ "range, flag", check_request(write, bad, SIZE, 1, &simple),
		  NBD_ENOSPC, "past the end of the export" },
		{ "flag", check_request(write, bad, 0, 1, &simple),
		  NBD_EINVAL, "a flag that this command does not have here" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		CHECK_EQ(cases[i].where, cases[i].got.error, cases[i].error);
		CHECK_STR(cases[i].where, cases[i].got.sentence, cases[i].sentence);
	}
}
