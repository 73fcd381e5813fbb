/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules of the handshake, as conversations: what a client asks, turn by turn, and what it
 * is answered.  The export's side is played here: an offer, a grant, or a refusal.
 */
#include "check.h"

#include "base/attr.h"
#include "negotiator/dispatch.h"

#define ANSWERS_MAX 512u

/* A negotiation with two exports, "db" (also the nameless one) and "other". */
struct bench {
	struct negotiation n;
	struct catalogue_entry entries[2];
	struct catalogue catalogue;
	struct offer offer;
	struct offer *now;              /* what the export offers; NULL: `offer` */
	struct refusal refusal;         /* the export's answer to everything, if it has a reason */
	uint8_t outbox[OUTBOX_SIZE];
	unsigned n_flushes;

	/* of the last option: */
	unsigned n_offers;              /* times the offer was asked for */
	unsigned n_reserves;
	uint32_t types[ANSWERS_MAX];    /* of its replies */
	size_t n_answers;
	struct bytes last;              /* the last reply's payload */
	struct bytes all;               /* everything, when it fitted the outbox */
};

static void bench_reset(struct bench *b, enum nbd_mode mode)
{
	static struct access_rule anybody = { .anybody = true,
	                                      .rights = ACCESS_LIST | ACCESS_READ | ACCESS_WRITE };
	const struct access_list rules = { &anybody, 1 };

	*b = (struct bench) {
		.entries = { { .label = (char *) "db", .name = (char *) "db",
		               .description = (char *) "", .rules = rules },
		             { .label = (char *) "other", .name = (char *) "other",
		               .description = (char *) "another one", .rules = rules } },
		.offer = {
			.n_refs = 1,
			.terms = { .number = 1, .size = 1 << 20, .flags = NBD_FLAG_HAS_FLAGS,
			           .minimum_block = 512, .preferred_block = 4096,
			           .maximum_payload = NBD_MAX_PAYLOAD, .n_contexts = 2 },
			.n_contexts = 2,
			.contexts = { { 0, span_of("base:allocation") },
			              { 1, span_of("qemu:allocation-depth") } },
		},
	};
	b->catalogue = (struct catalogue) { .entries = b->entries, .n = 2,
	                                    .nameless = &b->entries[0] };
	b->n = (struct negotiation) {
		.catalogue = &b->catalogue, .mode = mode,
		.flags = { .fixed_newstyle = true, .no_zeroes = true },
		.out = emit_into(b->outbox, sizeof b->outbox),
	};
}

static void offer_bitmaps(struct bench *b)
{
	b->offer.contexts[2] = (struct offered_context) { 3, span_of("qemu:dirty-bitmap:a") };
	b->offer.contexts[3] = (struct offered_context) { 7, span_of("qemu:dirty-bitmap:ab") };
	b->offer.terms.n_contexts = 4;
	b->offer.n_contexts = 4;
}

/* Reads the replies that are in the outbox; EXPORT_NAME's answer has no header. */
static void take_replies(struct bench *b)
{
	struct bytes in = bytes_over(b->n.out.start, b->n.out.len);

	b->all = in;
	while (b->n.header.option != NBD_OPT_EXPORT_NAME && bytes_left(&in) &&
	       b->n_answers < ANSWERS_MAX) {
		CHECK_EQ("magic", take_u64(&in) == NBD_REP_MAGIC, true);
		CHECK_EQ("option", take_u32(&in), b->n.header.option);
		b->types[b->n_answers++] = take_u32(&in);
		b->last = take_bytes(&in, take_u32(&in));
		CHECK(!in.overrun);
	}
	b->n.out = emit_into(b->outbox, sizeof b->outbox);
}

static void play_offer(struct bench *b)
{
	b->n_offers++;
	if (b->refusal.reason)
		b->n.now.refusal = b->refusal;
	else
		b->n.now.offer = b->now ? b->now : &b->offer;
}

static void play_grant(struct bench *b)
{
	b->n_reserves++;
	b->n.now.is_granted = true;
	b->n.now.granted = (struct channel_granted) {
		.request = 1, .token = 2, .connection = 3, .size = 2 << 20,
		.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_DF,
	};
}

/* One option from header to answer. */
static enum next ask(struct bench *b, uint32_t option, const void *payload, size_t len)
{
	struct option_header header = { .option = option, .length = (uint32_t) len };
	enum payload_use use = option_begin(&b->n, header);
	enum next next;

	b->n_answers = 0;
	b->n_offers = b->n_reserves = b->n_flushes = 0;
	if (use == PAYLOAD_CLOSE)
		return NEXT_CLOSE;
	for (;;) {
		next = option_dispatch(&b->n, bytes_over(payload, use == PAYLOAD_KEEP ? len : 0));
		take_replies(b);
		if (next == NEXT_FLUSH)
			b->n_flushes++;
		else if (next == NEXT_OFFER && b->n_offers < 3)
			play_offer(b);
		else if (next == NEXT_RESERVE && b->n_reserves < 3)
			play_grant(b);
		else
			return next;
	}
}

static uint32_t last_type(const struct bench *b)
{
	return b->n_answers ? b->types[b->n_answers - 1] : 0;
}

/* Payloads.  Strings are written with their lengths, to be checked by eye. */
#define DB U32(2), 'd', 'b'
#define OTHER U32(5), 'o', 't', 'h', 'e', 'r'
#define NOBODY U32(1), 'x'
#define ALLOCATION U32(15), 'b', 'a', 's', 'e', ':', 'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', \
	'o', 'n'
#define DEPTH U32(21), 'q', 'e', 'm', 'u', ':', 'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n', \
	'-', 'd', 'e', 'p', 't', 'h'
#define BASE U32(5), 'b', 'a', 's', 'e', ':'
#define QEMU U32(5), 'q', 'e', 'm', 'u', ':'
#define BITMAPS U32(18), 'q', 'e', 'm', 'u', ':', 'd', 'i', 'r', 't', 'y', '-', 'b', 'i', 't', \
	'm', 'a', 'p', ':'
#define BITMAP_A U32(19), 'q', 'e', 'm', 'u', ':', 'd', 'i', 'r', 't', 'y', '-', 'b', 'i', 't', \
	'm', 'a', 'p', ':', 'a'
#define BITMAP_B U32(20), 'q', 'e', 'm', 'u', ':', 'd', 'i', 'r', 't', 'y', '-', 'b', 'i', 't', \
	'm', 'a', 'p', ':', 'a', 'b'
#define NO_BYTES NULL, 0

struct turn {
	const char *what;
	uint32_t option;
	const uint8_t *payload;
	size_t len;
	enum next next;
	unsigned n_answers;
	uint32_t last;                  /* the last answer's type */
	enum nbd_mode mode;             /* afterwards */
	unsigned n_chosen;              /* contexts, afterwards */
};

static void converse(struct bench *b, const struct turn *turns, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct turn *t = &turns[i];

		CHECK_EQ(t->what, ask(b, t->option, t->payload, t->len), t->next);
		CHECK_EQ(t->what, b->n_answers, t->n_answers);
		CHECK_EQ(t->what, last_type(b), t->last);
		CHECK_EQ(t->what, b->n.mode, t->mode);
		CHECK_EQ(t->what, b->n.chosen.n, t->n_chosen);
	}
}

#define ACK NBD_REP_ACK
#define INVALID ((uint32_t) NBD_REP_ERR_INVALID)
#define UNKNOWN ((uint32_t) NBD_REP_ERR_UNKNOWN)
#define SIMPLE NBD_MODE_SIMPLE
#define STRUCTURED NBD_MODE_STRUCTURED
#define EXTENDED NBD_MODE_EXTENDED

TEST(modes_only_go_up_and_each_once)
{
	const struct turn turns[] = {
		{ "structured, with a payload", NBD_OPT_STRUCTURED_REPLY, BYTES(0), NEXT_OPTION,
		  1, INVALID, SIMPLE, 0 },
		{ "structured", NBD_OPT_STRUCTURED_REPLY, NO_BYTES, NEXT_OPTION, 1, ACK,
		  STRUCTURED, 0 },
		{ "structured again", NBD_OPT_STRUCTURED_REPLY, NO_BYTES, NEXT_OPTION, 1, INVALID,
		  STRUCTURED, 0 },
		{ "extended, with a payload", NBD_OPT_EXTENDED_HEADERS, BYTES(0), NEXT_OPTION, 1,
		  INVALID, STRUCTURED, 0 },
		{ "extended", NBD_OPT_EXTENDED_HEADERS, NO_BYTES, NEXT_OPTION, 1, ACK, EXTENDED,
		  0 },
		{ "extended again", NBD_OPT_EXTENDED_HEADERS, NO_BYTES, NEXT_OPTION, 1, INVALID,
		  EXTENDED, 0 },
		{ "structured after extended", NBD_OPT_STRUCTURED_REPLY, NO_BYTES, NEXT_OPTION, 1,
		  (uint32_t) NBD_REP_ERR_EXT_HEADER_REQD, EXTENDED, 0 },
		{ "EXPORT_NAME after extended", NBD_OPT_EXPORT_NAME, BYTES('d', 'b'), NEXT_CLOSE, 0,
		  0, EXTENDED, 0 },
	};
	struct bench b;

	bench_reset(&b, SIMPLE);
	converse(&b, turns, ARRAY_LEN(turns));
}

TEST(options_without_an_export_never_ask_for_one)
{
	const struct turn turns[] = {
		{ "unknown", 77, BYTES(1, 2, 3), NEXT_OPTION, 1, (uint32_t) NBD_REP_ERR_UNSUP,
		  SIMPLE, 0 },
		{ "withdrawn", NBD_OPT_PEEK_EXPORT, NO_BYTES, NEXT_OPTION, 1,
		  (uint32_t) NBD_REP_ERR_UNSUP, SIMPLE, 0 },
		{ "the largest number", UINT32_MAX, NO_BYTES, NEXT_OPTION, 1,
		  (uint32_t) NBD_REP_ERR_UNSUP, SIMPLE, 0 },
		{ "STARTTLS", NBD_OPT_STARTTLS, NO_BYTES, NEXT_OPTION, 1,
		  (uint32_t) NBD_REP_ERR_POLICY, SIMPLE, 0 },
		{ "STARTTLS, with a payload", NBD_OPT_STARTTLS, BYTES(0), NEXT_CLOSE, 1, INVALID,
		  SIMPLE, 0 },
		{ "LIST, with a payload", NBD_OPT_LIST, BYTES(0), NEXT_OPTION, 1, INVALID, SIMPLE,
		  0 },
		{ "LIST", NBD_OPT_LIST, NO_BYTES, NEXT_OPTION, 3, ACK, SIMPLE, 0 },
		{ "ABORT, with a payload", NBD_OPT_ABORT, BYTES(0), NEXT_CLOSE, 1, ACK, SIMPLE, 0 },
	};
	struct bench b;

	bench_reset(&b, SIMPLE);
	for (size_t i = 0; i < ARRAY_LEN(turns); i++) {
		converse(&b, &turns[i], 1);
		CHECK_EQ(turns[i].what, b.n_offers, 0);
	}
}

TEST(without_fixed_newstyle_only_export_name_is_allowed)
{
	struct bench b;

	for (uint32_t option = 0; option < 16; option++) {
		bench_reset(&b, SIMPLE);
		b.n.flags.fixed_newstyle = false;
		CHECK_EQ("option", ask(&b, option, "db", option == NBD_OPT_EXPORT_NAME ? 2 : 0),
		         option == NBD_OPT_EXPORT_NAME ? NEXT_HANDOFF : NEXT_CLOSE);
	}
}

TEST(a_selection_survives_exactly_what_it_should)
{
	const struct turn turns[] = {
		{ "SET before structured replies", NBD_OPT_SET_META_CONTEXT,
		  BYTES(DB, U32(1), ALLOCATION), NEXT_OPTION, 1, INVALID, SIMPLE, 0 },
		{ "LIST_META before structured replies", NBD_OPT_LIST_META_CONTEXT,
		  BYTES(DB, U32(0)), NEXT_OPTION, 3, ACK, SIMPLE, 0 },
		{ "structured", NBD_OPT_STRUCTURED_REPLY, NO_BYTES, NEXT_OPTION, 1, ACK,
		  STRUCTURED, 0 },
		{ "SET", NBD_OPT_SET_META_CONTEXT, BYTES(DB, U32(2), DEPTH, ALLOCATION),
		  NEXT_OPTION, 3, ACK, STRUCTURED, 2 },
		{ "LIST_META keeps it", NBD_OPT_LIST_META_CONTEXT, BYTES(OTHER, U32(1), QEMU),
		  NEXT_OPTION, 2, ACK, STRUCTURED, 2 },
		{ "INFO of another keeps it", NBD_OPT_INFO, BYTES(OTHER, U16(1), U16(3)),
		  NEXT_OPTION, 4, ACK, STRUCTURED, 2 },
		{ "GO to nobody keeps it", NBD_OPT_GO, BYTES(NOBODY, U16(0)), NEXT_OPTION, 1,
		  UNKNOWN, STRUCTURED, 2 },
		{ "GO without sense keeps it", NBD_OPT_GO, BYTES(DB), NEXT_OPTION, 1, INVALID,
		  STRUCTURED, 2 },
		{ "SET that repeats itself", NBD_OPT_SET_META_CONTEXT,
		  BYTES(DB, U32(2), DEPTH, DEPTH), NEXT_OPTION, 2, ACK, STRUCTURED, 1 },
		{ "SET of a wildcard", NBD_OPT_SET_META_CONTEXT, BYTES(DB, U32(2), BASE, QEMU),
		  NEXT_OPTION, 1, ACK, STRUCTURED, 0 },
		{ "SET again", NBD_OPT_SET_META_CONTEXT, BYTES(DB, U32(1), ALLOCATION),
		  NEXT_OPTION, 2, ACK, STRUCTURED, 1 },
		{ "SET of nothing", NBD_OPT_SET_META_CONTEXT, BYTES(DB, U32(0)), NEXT_OPTION, 1,
		  ACK, STRUCTURED, 0 },
		{ "SET again", NBD_OPT_SET_META_CONTEXT, BYTES(DB, U32(1), ALLOCATION),
		  NEXT_OPTION, 2, ACK, STRUCTURED, 1 },
		{ "SET of nobody's", NBD_OPT_SET_META_CONTEXT, BYTES(NOBODY, U32(1), ALLOCATION),
		  NEXT_OPTION, 1, UNKNOWN, STRUCTURED, 0 },
		{ "SET again", NBD_OPT_SET_META_CONTEXT, BYTES(DB, U32(1), ALLOCATION),
		  NEXT_OPTION, 2, ACK, STRUCTURED, 1 },
		{ "SET without sense", NBD_OPT_SET_META_CONTEXT, BYTES(DB, U32(2), ALLOCATION),
		  NEXT_OPTION, 1, INVALID, STRUCTURED, 0 },
		{ "SET for the nameless export", NBD_OPT_SET_META_CONTEXT,
		  BYTES(U32(0), U32(1), ALLOCATION), NEXT_OPTION, 2, ACK, STRUCTURED, 1 },
		{ "GO to it by its name", NBD_OPT_GO, BYTES(DB, U16(0)), NEXT_HANDOFF, 3, ACK,
		  STRUCTURED, 1 },
		{ "GO to another", NBD_OPT_GO, BYTES(OTHER, U16(0)), NEXT_HANDOFF, 4, ACK,
		  STRUCTURED, 0 },
	};
	struct bench b;

	bench_reset(&b, SIMPLE);
	converse(&b, turns, ARRAY_LEN(turns));
}

TEST(export_name_drops_what_was_set_for_another)
{
	static const uint8_t set[] = { DB, U32(1), ALLOCATION };
	struct bench b;

	for (unsigned same = 0; same < 2; same++) {
		bench_reset(&b, STRUCTURED);
		(void) ask(&b, NBD_OPT_SET_META_CONTEXT, set, sizeof set);
		CHECK_EQ("", b.n.chosen.n, 1);
		CHECK_EQ("", ask(&b, NBD_OPT_EXPORT_NAME, same ? "db" : "other", same ? 2 : 5),
		         NEXT_HANDOFF);
		CHECK_EQ("", b.n.chosen.n, same);
	}
}

TEST(export_name_is_answered_with_or_without_zeroes)
{
	struct bench b;

	for (unsigned no_zeroes = 0; no_zeroes < 2; no_zeroes++) {
		bench_reset(&b, STRUCTURED);
		b.n.flags.no_zeroes = no_zeroes;
		CHECK_EQ("", ask(&b, NBD_OPT_EXPORT_NAME, "db", 2), NEXT_HANDOFF);
		CHECK_EQ("", bytes_left(&b.all), no_zeroes ? 10 : 134);
		CHECK_EQ("the grant's size", take_u64(&b.all), 2 << 20);
		CHECK_EQ("the grant's flags", take_u16(&b.all),
		         NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_DF);
	}
}

TEST(export_name_refuses_by_closing)
{
	static const uint8_t nul[] = { 'd', 0, 'b' };
	static uint8_t long_name[NBD_MAX_STRING + 1];
	struct bench b;

	memset(long_name, 'x', sizeof long_name);
	bench_reset(&b, SIMPLE);
	CHECK_EQ("unknown", ask(&b, NBD_OPT_EXPORT_NAME, "nobody", 6), NEXT_CLOSE);
	CHECK_EQ("unknown", b.n.verdict.reason, REASON_EXPORT_UNKNOWN);
	CHECK_EQ("long", ask(&b, NBD_OPT_EXPORT_NAME, long_name, sizeof long_name), NEXT_CLOSE);
	CHECK_EQ("with a NUL", ask(&b, NBD_OPT_EXPORT_NAME, nul, sizeof nul), NEXT_CLOSE);
	b.refusal = (struct refusal) { REASON_START_SLOW, "slow" };
	CHECK_EQ("slow", ask(&b, NBD_OPT_EXPORT_NAME, "db", 2), NEXT_CLOSE);
	CHECK_STR("slow", b.n.verdict.sentence, "slow");
	CHECK_EQ("nothing was said", bytes_left(&b.all), 0);
}

TEST(every_reason_has_its_error_and_the_client_may_go_on)
{
	static const struct {
		enum reason reason;
		enum nbd_rep want;
	} rows[] = {
		{ REASON_EXPORT_UNKNOWN, NBD_REP_ERR_UNKNOWN },
		{ REASON_EXPORT_GONE, NBD_REP_ERR_PLATFORM },
		{ REASON_START_FAILED, NBD_REP_ERR_PLATFORM },
		{ REASON_START_SLOW, NBD_REP_ERR_PLATFORM },
		{ REASON_OFFER_STALE, NBD_REP_ERR_PLATFORM },
		{ REASON_NO_SLOT, NBD_REP_ERR_POLICY },
		{ REASON_SINGLE_WRITER, NBD_REP_ERR_POLICY },
		{ REASON_SHUTDOWN, NBD_REP_ERR_SHUTDOWN },
		{ REASON_DEVICE, NBD_REP_ERR_PLATFORM },
	};
	static const uint8_t go[] = { DB, U16(0) }, meta[] = { DB, U32(0) };
	struct bench b;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		bench_reset(&b, STRUCTURED);
		b.refusal = (struct refusal) { rows[i].reason, "because" };
		for (uint32_t option = NBD_OPT_INFO; option <= NBD_OPT_SET_META_CONTEXT; option++) {
			bool is_go = option <= NBD_OPT_GO;

			if (option == NBD_OPT_STRUCTURED_REPLY)
				continue;
			CHECK_EQ("goes on", ask(&b, option, is_go ? go : meta,
			                        is_go ? sizeof go : sizeof meta), NEXT_OPTION);
			CHECK_EQ("one answer", b.n_answers, 1);
			CHECK_EQ("the error", last_type(&b), (uint32_t) rows[i].want);
			CHECK_EQ("the words", span_equal(take_span(&b.last, b.last.left),
			                                 span_of("because")), true);
			CHECK_EQ("for the log", b.n.verdict.reason, rows[i].reason);
		}
	}
}

/* proto.md, and QEMU's way where it leaves a choice. */
TEST(block_sizes_are_told_as_they_were_asked_for)
{
	static const struct {
		const char *what;
		uint32_t option;
		bool asks;
		uint32_t true_minimum, want_minimum;
		uint32_t last;
	} rows[] = {
		{ "INFO that asks", NBD_OPT_INFO, true, 512, 512, ACK },
		{ "INFO that does not", NBD_OPT_INFO, false, 512, 512,
		  (uint32_t) NBD_REP_ERR_BLOCK_SIZE_REQD },
		{ "INFO that need not", NBD_OPT_INFO, false, 1, 1, ACK },
		{ "GO that asks", NBD_OPT_GO, true, 512, 512, ACK },
		{ "GO that does not", NBD_OPT_GO, false, 512, 1, ACK },
	};
	struct bench b;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		static const uint8_t asking[] = { DB, U16(1), U16(NBD_INFO_BLOCK_SIZE) };
		static const uint8_t silent[] = { DB, U16(0) };
		const char *what = rows[i].what;

		bench_reset(&b, SIMPLE);
		b.offer.terms.minimum_block = rows[i].true_minimum;
		(void) ask(&b, rows[i].option, rows[i].asks ? asking : silent,
		           rows[i].asks ? sizeof asking : sizeof silent);
		CHECK_EQ(what, b.n_answers, 3);
		CHECK_EQ(what, last_type(&b), rows[i].last);
		(void) take_bytes(&b.all, NBD_OPTION_REPLY_HEADER_SIZE);
		CHECK_EQ(what, take_u16(&b.all), NBD_INFO_BLOCK_SIZE);
		CHECK_EQ(what, take_u32(&b.all), rows[i].want_minimum);
		CHECK_EQ(what, take_u32(&b.all), 4096);
		CHECK_EQ(what, take_u32(&b.all), NBD_MAX_PAYLOAD);
		(void) take_bytes(&b.all, NBD_OPTION_REPLY_HEADER_SIZE);
		CHECK_EQ(what, take_u16(&b.all), NBD_INFO_EXPORT);
		CHECK_EQ(what, take_u64(&b.all), rows[i].option == NBD_OPT_GO ? 2 << 20 : 1 << 20);
	}
}

TEST(info_flags_follow_the_mode)
{
	static const uint16_t want[N_NBD_MODES] = {
		[SIMPLE] = NBD_FLAG_HAS_FLAGS,
		[STRUCTURED] = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_DF,
		[EXTENDED] = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_DF | NBD_FLAG_BLOCK_STAT_PAYLOAD,
	};
	static const uint8_t info[] = { DB, U16(1), U16(NBD_INFO_BLOCK_SIZE) };
	struct bench b;

	for (enum nbd_mode mode = SIMPLE; mode < N_NBD_MODES; mode++) {
		bench_reset(&b, mode);
		(void) ask(&b, NBD_OPT_INFO, info, sizeof info);
		(void) take_bytes(&b.all, 2 * NBD_OPTION_REPLY_HEADER_SIZE + 14 + 2 + 8);
		CHECK_EQ("flags", take_u16(&b.all), want[mode]);
		CHECK_EQ("nothing is reserved", b.n_reserves, 0);
	}
}

TEST(name_is_told_if_asked_for_and_a_description_if_there_is_one)
{
	static const uint8_t name[] = { U32(0), U16(3), U16(NBD_INFO_NAME), U16(3), U16(99) };
	static const uint8_t other[] = { OTHER, U16(1), U16(NBD_INFO_BLOCK_SIZE) };
	struct bench b;

	bench_reset(&b, SIMPLE);
	CHECK_EQ("", ask(&b, NBD_OPT_GO, name, sizeof name), NEXT_HANDOFF);
	CHECK_EQ("name, block size, export, ack", b.n_answers, 4);
	(void) take_bytes(&b.all, NBD_OPTION_REPLY_HEADER_SIZE);
	CHECK_EQ("", take_u16(&b.all), NBD_INFO_NAME);
	CHECK_EQ("", span_equal(take_span(&b.all, 2), span_of("db")), true);

	(void) ask(&b, NBD_OPT_INFO, other, sizeof other);
	CHECK_EQ("description, block size, export, ack", b.n_answers, 4);
	(void) take_bytes(&b.all, NBD_OPTION_REPLY_HEADER_SIZE);
	CHECK_EQ("", take_u16(&b.all), NBD_INFO_DESCRIPTION);
}

TEST(contexts_that_went_away_since_are_refused_and_forgotten)
{
	static const uint8_t set[] = { DB, U32(1), DEPTH }, go[] = { DB, U16(0) };
	struct bench b;

	bench_reset(&b, STRUCTURED);
	(void) ask(&b, NBD_OPT_SET_META_CONTEXT, set, sizeof set);
	b.offer.n_contexts = 1;
	CHECK_EQ("", ask(&b, NBD_OPT_GO, go, sizeof go), NEXT_OPTION);
	CHECK_EQ("", last_type(&b), (uint32_t) NBD_REP_ERR_PLATFORM);
	CHECK_EQ("", b.n_reserves, 0);
	CHECK_EQ("without them", ask(&b, NBD_OPT_GO, go, sizeof go), NEXT_HANDOFF);
}

/* After a restart of the export its numbers begin anew, and may be other bitmaps'. */
TEST(contexts_that_have_another_name_now_are_refused_and_forgotten)
{
	static const uint8_t set[] = { DB, U32(2), ALLOCATION, BITMAP_A }, go[] = { DB, U16(0) };
	struct bench b;
	struct offer after;

	for (unsigned same = 0; same < 2; same++) {
		bench_reset(&b, STRUCTURED);
		offer_bitmaps(&b);
		after = b.offer;
		(void) ask(&b, NBD_OPT_SET_META_CONTEXT, set, sizeof set);
		CHECK_EQ("", b.n.chosen.n, 2);
		if (!same)
			after.contexts[2].name = span_of("qemu:dirty-bitmap:c");
		b.now = &after;
		CHECK_EQ("", ask(&b, NBD_OPT_GO, go, sizeof go), same ? NEXT_HANDOFF : NEXT_OPTION);
		CHECK_EQ("", b.n_reserves, same);
		CHECK_EQ("", b.n.chosen.n, same ? 2 : 0);
		if (!same)
			CHECK_EQ("", last_type(&b), (uint32_t) NBD_REP_ERR_PLATFORM);
		forget_contexts(&b.n);
		CHECK_EQ("the reference is given back", b.offer.n_refs, 1);
	}
}

/* Ids as after some have come and gone. */
TEST(bitmaps_are_listed_by_their_kind_and_selected_by_their_names)
{
	enum { LIST = NBD_OPT_LIST_META_CONTEXT, SET = NBD_OPT_SET_META_CONTEXT };
	static const uint8_t nothing[] = { DB, U32(0) };
	static const uint8_t qemu[] = { DB, U32(1), QEMU };
	static const uint8_t kind[] = { DB, U32(1), BITMAPS };
	static const uint8_t one[] = { DB, U32(1), BITMAP_B };
	static const uint8_t several[] = { DB, U32(3), BITMAP_B, ALLOCATION, BITMAP_A };
	static const uint8_t kinds[] = { DB, U32(4), BITMAP_A, QEMU, BITMAPS, BITMAP_A };
	static const struct {
		const char *what;
		uint32_t option;
		const uint8_t *payload;
		size_t len;
		unsigned n_answers, n_chosen;
		uint32_t chosen[4];
	} cases[] = {
		{ "LIST, nothing", LIST, nothing, sizeof nothing, 5, 0, { 0 } },
		{ "LIST, qemu:", LIST, qemu, sizeof qemu, 4, 0, { 0 } },
		{ "LIST, the kind", LIST, kind, sizeof kind, 3, 0, { 0 } },
		{ "LIST, one", LIST, one, sizeof one, 2, 0, { 0 } },
		{ "LIST, all at once", LIST, kinds, sizeof kinds, 4, 0, { 0 } },
		{ "SET, nothing", SET, nothing, sizeof nothing, 1, 0, { 0 } },
		{ "SET, qemu:", SET, qemu, sizeof qemu, 1, 0, { 0 } },
		{ "SET, an empty name", SET, kind, sizeof kind, 1, 0, { 0 } },
		{ "SET, one", SET, one, sizeof one, 2, 1, { 7 } },
		{ "SET, several", SET, several, sizeof several, 4, 3, { 0, 3, 7 } },
		{ "SET, with wildcards", SET, kinds, sizeof kinds, 2, 1, { 3 } },
	};
	struct bench b;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		bench_reset(&b, STRUCTURED);
		offer_bitmaps(&b);
		CHECK_EQ(cases[i].what, ask(&b, cases[i].option, cases[i].payload, cases[i].len),
		         NEXT_OPTION);
		CHECK_EQ(cases[i].what, last_type(&b), ACK);
		CHECK_EQ(cases[i].what, b.n_answers, cases[i].n_answers);
		CHECK_EQ(cases[i].what, b.n.chosen.n, cases[i].n_chosen);
		for (unsigned k = 0; k < cases[i].n_chosen; k++)
			CHECK_EQ(cases[i].what, b.n.chosen.ids[k], cases[i].chosen[k]);
		forget_contexts(&b.n);
	}
}

/* "other" lets 192.0.2.0/24 read and nobody else anything. */
static void restrict_other(struct bench *b, const char *peer)
{
	static struct access_rule reading = { .kind = PEER_IPV4, .prefix = 24,
	                                      .address = { 192, 0, 2 },
	                                      .rights = ACCESS_LIST | ACCESS_READ };

	b->entries[1].rules = (struct access_list) { &reading, 1 };
	peer_parse(span_of(peer), &b->n.who);
}

TEST(whom_no_rule_lets_in_is_told_that_there_is_no_such_export)
{
	static const uint8_t go[] = { OTHER, U16(0) };
	static const uint8_t meta[] = { OTHER, U32(0) };
	static const uint8_t name[] = { 'o', 't', 'h', 'e', 'r' };
	const struct {
		uint32_t option;
		const uint8_t *payload;
		size_t len;
	} ways[] = {
		{ NBD_OPT_INFO, go, sizeof go },
		{ NBD_OPT_GO, go, sizeof go },
		{ NBD_OPT_LIST_META_CONTEXT, meta, sizeof meta },
		{ NBD_OPT_SET_META_CONTEXT, meta, sizeof meta },
	};
	struct bench b;

	bench_reset(&b, STRUCTURED);
	restrict_other(&b, "198.51.100.1:1");
	CHECK_EQ("", ask(&b, NBD_OPT_LIST, NULL, 0), NEXT_OPTION);
	CHECK_EQ("the other one, and the end", b.n_answers, 2);
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		CHECK_EQ("", ask(&b, ways[i].option, ways[i].payload, ways[i].len), NEXT_OPTION);
		CHECK_EQ("", last_type(&b), (uint32_t) NBD_REP_ERR_UNKNOWN);
		CHECK_STR("as for any name", b.n.verdict.sentence, "there is no export 'other'");
		CHECK_EQ("the log knows", b.n.verdict.reason, REASON_NO_ACCESS);
		CHECK(b.n.verdict.denied == &b.entries[1]);
		CHECK_EQ("it is not started", b.n_offers + b.n_reserves, 0);
	}
	CHECK_EQ("", ask(&b, NBD_OPT_EXPORT_NAME, name, sizeof name), NEXT_CLOSE);
	CHECK_EQ("", b.n.verdict.reason, REASON_NO_ACCESS);
}

TEST(who_may_only_read_is_told_that_the_export_is_read_only)
{
	static const uint8_t go[] = { OTHER, U16(0) };
	struct bench b;
	struct bytes at;

	bench_reset(&b, STRUCTURED);
	b.offer.terms.minimum_block = 1;
	b.offer.terms.flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
	restrict_other(&b, "192.0.2.7:1");
	CHECK_EQ("", ask(&b, NBD_OPT_LIST, NULL, 0), NEXT_OPTION);
	CHECK_EQ("both, and the end", b.n_answers, 3);
	CHECK_EQ("", ask(&b, NBD_OPT_INFO, go, sizeof go), NEXT_OPTION);
	CHECK_EQ("", last_type(&b), NBD_REP_ACK);
	/* The export's info stands before the acknowledgement, its flags at the end of it. */
	at = bytes_over(b.all.at + b.all.left - 20 - 2, 2);
	CHECK_EQ("flags", take_u16(&at),
	         NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_DF);
}

/* Asks by every option that names the other export; each must be answered so. */
static void ask_all_ways(struct bench *b, uint32_t error, enum reason reason, const char *sentence)
{
	static const uint8_t go[] = { OTHER, U16(0) };
	static const uint8_t meta[] = { OTHER, U32(0) };
	static const uint8_t name[] = { 'o', 't', 'h', 'e', 'r' };
	const struct {
		uint32_t option;
		const uint8_t *payload;
		size_t len;
	} ways[] = {
		{ NBD_OPT_INFO, go, sizeof go },
		{ NBD_OPT_GO, go, sizeof go },
		{ NBD_OPT_LIST_META_CONTEXT, meta, sizeof meta },
		{ NBD_OPT_SET_META_CONTEXT, meta, sizeof meta },
	};

	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		CHECK_EQ("", ask(b, ways[i].option, ways[i].payload, ways[i].len), NEXT_OPTION);
		CHECK_EQ("", last_type(b), error);
		CHECK_STR("", b->n.verdict.sentence, sentence);
		CHECK_EQ("", b->n.verdict.reason, reason);
		CHECK_EQ("it is not started", b->n_offers + b->n_reserves, 0);
	}
	CHECK_EQ("", ask(b, NBD_OPT_EXPORT_NAME, name, sizeof name), NEXT_CLOSE);
	CHECK_EQ("", b->n.verdict.reason, reason);
}

static unsigned listed(struct bench *b)
{
	CHECK_EQ("", ask(b, NBD_OPT_LIST, NULL, 0), NEXT_OPTION);
	return (unsigned) b->n_answers - 1;
}

#define NEEDS_TLS "use TLS first: export 'other' is not served without it"
#define NO_EXPORT "there is no export 'other'"

TEST(an_export_that_requires_tls_is_neither_listed_nor_served_in_clear)
{
	const struct identity nobody = { 0 };
	struct bench b;

	bench_reset(&b, STRUCTURED);
	b.entries[1].tls = TLS_POLICY_REQUIRE;
	CHECK_EQ("", listed(&b), 1);
	ask_all_ways(&b, (uint32_t) NBD_REP_ERR_TLS_REQD, REASON_TLS_REQUIRED, NEEDS_TLS);
	b.n.identity = &nobody;
	CHECK_EQ("", listed(&b), 2);
}

TEST(an_export_without_tls_is_neither_listed_nor_served_by_tls)
{
	const struct identity nobody = { 0 };
	struct bench b;

	bench_reset(&b, STRUCTURED);
	b.entries[1].tls = TLS_POLICY_OFF;
	CHECK_EQ("", listed(&b), 2);
	b.n.identity = &nobody;
	CHECK_EQ("", listed(&b), 1);
	ask_all_ways(&b, (uint32_t) NBD_REP_ERR_UNKNOWN, REASON_NO_ACCESS, NO_EXPORT);
}

TEST(identities_let_in_whom_a_rule_matches_and_nobody_else)
{
	const struct identity alice = { .fingerprint = span_of("ff"), .subject = span_of("CN=alice") };
	const struct identity bob = { .psk = span_of("bob") }, nobody = { 0 };
	struct failure why = { 0 };
	struct bench b;

	bench_reset(&b, STRUCTURED);
	CHECK_EQ("", identity_list_parse("list psk:bob\nwrite dn:CN=alice", &b.entries[1].identities,
	                                 &why), 0);
	ask_all_ways(&b, (uint32_t) NBD_REP_ERR_TLS_REQD, REASON_TLS_REQUIRED, NEEDS_TLS);
	CHECK_EQ("in clear", listed(&b), 1);
	b.n.identity = &nobody;
	CHECK_EQ("nobody", listed(&b), 1);
	ask_all_ways(&b, (uint32_t) NBD_REP_ERR_UNKNOWN, REASON_NO_ACCESS, NO_EXPORT);
	b.n.identity = &bob;
	CHECK_EQ("bob", listed(&b), 2);
	ask_all_ways(&b, (uint32_t) NBD_REP_ERR_POLICY, REASON_NO_ACCESS,
	             "export 'other' is listed for this client, but not to be used by it");
	b.n.identity = &alice;
	CHECK_EQ("alice", listed(&b), 2);
	CHECK_EQ("", option_access(&b.n, &b.entries[1]).rights,
	         ACCESS_LIST | ACCESS_READ | ACCESS_WRITE);
	/* An address that only reads leaves her that. */
	restrict_other(&b, "192.0.2.7:1");
	CHECK_EQ("", option_access(&b.n, &b.entries[1]).rights, ACCESS_LIST | ACCESS_READ);
	restrict_other(&b, "198.51.100.1:1");
	ask_all_ways(&b, (uint32_t) NBD_REP_ERR_UNKNOWN, REASON_NO_ACCESS, NO_EXPORT);
	identity_list_clear(&b.entries[1].identities);
}

TEST(before_tls_that_is_required_all_but_starttls_and_abort_is_refused)
{
	const struct identity nobody = { 0 };
	struct bench b;

	for (uint32_t option = 2; option < 16; option++) {
		bool allowed = option == NBD_OPT_STARTTLS || option == NBD_OPT_ABORT;

		bench_reset(&b, SIMPLE);
		b.catalogue.tls = TLS_POLICY_REQUIRE;
		b.catalogue.has_tls = true;
		if (allowed)
			continue;
		CHECK_EQ("option", ask(&b, option, "payload", 7), NEXT_OPTION);
		CHECK_EQ("option", last_type(&b), (uint32_t) NBD_REP_ERR_TLS_REQD);
		CHECK_EQ("mode", b.n.mode, NBD_MODE_SIMPLE);
		CHECK_EQ("", b.n.verdict.reason, REASON_TLS_REQUIRED);
	}
	CHECK_EQ("", ask(&b, NBD_OPT_EXPORT_NAME, "db", 2), NEXT_CLOSE);
	CHECK_EQ("", b.n.verdict.reason, REASON_TLS_REQUIRED);
	CHECK_EQ("", ask(&b, NBD_OPT_ABORT, NULL, 0), NEXT_CLOSE);
	CHECK_EQ("", last_type(&b), NBD_REP_ACK);
	b.n.identity = &nobody;
	CHECK_EQ("", listed(&b), 2);
}

TEST(starttls_is_acknowledged_when_nbd_tls_is_there)
{
	const struct identity nobody = { 0 };
	struct bench b;

	bench_reset(&b, SIMPLE);
	CHECK_EQ("off", ask(&b, NBD_OPT_STARTTLS, NULL, 0), NEXT_OPTION);
	CHECK_EQ("", last_type(&b), (uint32_t) NBD_REP_ERR_POLICY);
	b.catalogue.has_tls = true;
	CHECK_EQ("", ask(&b, NBD_OPT_STARTTLS, NULL, 0), NEXT_TLS);
	CHECK_EQ("nothing was said yet", b.n_answers, 0);
	b.n.now.has_tls = true;
	CHECK_EQ("", option_dispatch(&b.n, bytes_over(NULL, 0)), NEXT_SECURE);
	take_replies(&b);
	CHECK_EQ("", last_type(&b), NBD_REP_ACK);
	CHECK_EQ("", ask(&b, NBD_OPT_STARTTLS, NULL, 0), NEXT_TLS);
	b.n.now.refusal = (struct refusal) { .reason = REASON_TLS_UNAVAILABLE, .sentence = "no" };
	CHECK_EQ("", option_dispatch(&b.n, bytes_over(NULL, 0)), NEXT_OPTION);
	take_replies(&b);
	CHECK_EQ("", last_type(&b), (uint32_t) NBD_REP_ERR_PLATFORM);
	CHECK_EQ("", ask(&b, NBD_OPT_STARTTLS, "x", 1), NEXT_CLOSE);
	CHECK_EQ("", last_type(&b), INVALID);
	b.n.identity = &nobody;
	CHECK_EQ("again", ask(&b, NBD_OPT_STARTTLS, NULL, 0), NEXT_OPTION);
	CHECK_EQ("", last_type(&b), INVALID);
}

TEST(long_lists_are_sent_in_pieces)
{
	static struct catalogue_entry many[300];
	static char name[NBD_MAX_STRING + 1];
	struct bench b;

	memset(name, 'n', NBD_MAX_STRING);
	bench_reset(&b, SIMPLE);
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		many[i] = (struct catalogue_entry) { .label = name, .name = name,
		                                     .description = name,
		                                     .rules = b.entries[0].rules };
	b.catalogue = (struct catalogue) { .entries = many, .n = ARRAY_LEN(many) };
	CHECK_EQ("", ask(&b, NBD_OPT_LIST, NULL, 0), NEXT_OPTION);
	CHECK_EQ("", b.n_answers, ARRAY_LEN(many) + 1);
	CHECK(b.n_flushes > 10);
}

TEST(as_many_contexts_as_there_can_be_are_all_selected)
{
	static char name[NBD_MAX_STRING];
	static uint8_t payload[6 + 4 + 4 + NBD_MAX_STRING];
	struct emit out = emit_into(payload, sizeof payload);
	struct span context = { .at = (uint8_t *) name, .len = sizeof name };
	struct bench b;

	memset(name, 'c', sizeof name);
	bench_reset(&b, STRUCTURED);
	for (uint32_t i = 0; i < NBD_MAX_CONTEXTS; i++)
		b.offer.contexts[i] = (struct offered_context) { i, context };
	b.offer.n_contexts = NBD_MAX_CONTEXTS;

	emit_u32(&out, 2);
	emit_span(&out, span_of("db"));
	emit_u32(&out, 1);
	emit_u32(&out, (uint32_t) context.len);
	emit_span(&out, context);
	CHECK_EQ("", ask(&b, NBD_OPT_SET_META_CONTEXT, payload, out.len), NEXT_OPTION);
	CHECK_EQ("", b.n_answers, NBD_MAX_CONTEXTS + 1);
	CHECK_EQ("", b.n.chosen.n, NBD_MAX_CONTEXTS);
	for (uint32_t i = 0; i < NBD_MAX_CONTEXTS; i++)
		CHECK_EQ("each once, in order", b.n.chosen.ids[i], i);
}

TEST(many_queries_are_matched_in_slices)
{
	enum { N = 20000 };
	static uint8_t payload[6 + 4 + 4 * N + 19];
	struct emit out = emit_into(payload, sizeof payload);
	struct bench b;

	bench_reset(&b, STRUCTURED);
	emit_u32(&out, 2);
	emit_span(&out, span_of("db"));
	emit_u32(&out, N + 1);
	emit_zeroes(&out, 4 * N);
	emit_u32(&out, 15);
	emit_span(&out, span_of("base:allocation"));
	CHECK_EQ("", ask(&b, NBD_OPT_SET_META_CONTEXT, payload, out.len), NEXT_OPTION);
	CHECK_EQ("", b.n_answers, 2);
	CHECK_EQ("", b.n.chosen.n, 1);
	CHECK(b.n_flushes >= 4);
}

TEST(an_unknown_name_is_shown_printable_and_short)
{
	static uint8_t go[4 + 1000 + 2];
	struct emit out = emit_into(go, sizeof go);
	struct bench b;

	emit_u32(&out, 1000);
	for (unsigned i = 0; i < 1000; i++)
		emit_u8(&out, i % 2 ? 0xff : '\n');
	emit_u16(&out, 0);
	bench_reset(&b, SIMPLE);
	CHECK_EQ("", ask(&b, NBD_OPT_GO, go, sizeof go), NEXT_OPTION);
	CHECK_EQ("", last_type(&b), UNKNOWN);
	CHECK(bytes_left(&b.last) < 150);
	CHECK(!memchr(b.last.at, '\n', b.last.left) && !memchr(b.last.at, 0xff, b.last.left));
}

/* No prefix of a good payload, and nothing longer, is taken for it. */
TEST(lengths_that_do_not_match_are_refused_and_the_next_option_is_answered)
{
	static const uint8_t go[] = { DB, U16(1), U16(3), 0 };
	static const uint8_t meta[] = { DB, U32(1), ALLOCATION, 0 };
	struct bench b;

	bench_reset(&b, STRUCTURED);
	for (uint32_t option = NBD_OPT_INFO; option <= NBD_OPT_SET_META_CONTEXT; option++) {
		bool is_go = option <= NBD_OPT_GO;
		const uint8_t *payload = is_go ? go : meta;
		size_t good = (is_go ? sizeof go : sizeof meta) - 1;

		if (option == NBD_OPT_STRUCTURED_REPLY)
			continue;
		for (size_t len = 0; len <= good + 1; len++) {
			if (len == good)
				continue;
			CHECK_EQ("goes on", ask(&b, option, payload, len), NEXT_OPTION);
			CHECK_EQ("refused", last_type(&b), INVALID);
			CHECK_EQ("no export is asked", b.n_offers, 0);
		}
		(void) ask(&b, option, payload, good);
		CHECK_EQ("the good one", last_type(&b), ACK);
	}
}
