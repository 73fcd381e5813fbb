/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The records between negotiator and nbd-tls, one row each: how it is read, what must hold,
 * how it is written.
 *
 * A reader takes its fields in order and judges nothing; whether the lengths agree is asked
 * once for all records, and only then are the values checked.  Descriptors are not bytes,
 * and are checked by whoever received them.
 */
#include "wire/tls-channel.h"

#include <assert.h>

#include "base/attr.h"
#include "wire/record-frame.h"
#include "wire/record-text.h"

#define ALL_CAN (TLS_CAN_X509 | TLS_CAN_PSK | TLS_CAN_VERIFY)

/* HELLO */

static void read_hello(struct bytes *in, struct tls_record *ret)
{
	ret->hello.can = take_u8(in);
	ret->hello.not_after = take_u64(in);
	ret->hello.subject = take_text(in);
}

static const char *check_hello(const struct tls_record *record)
{
	const struct tls_hello *hello = &record->hello;

	if (hello->can & ~ALL_CAN)
		return "it can something unknown";
	if (!(hello->can & TLS_CAN_X509) &&
	    (hello->can & TLS_CAN_VERIFY || hello->subject.len || hello->not_after))
		return "there is no certificate, but something about it";
	if (hello->not_after > INT64_MAX)
		return "the certificate's end is not a time";
	return check_text(hello->subject, TLS_SUBJECT_MAX);
}

static void write_hello(struct emit *out, const struct tls_record *record)
{
	emit_u8(out, record->hello.can);
	emit_u64(out, record->hello.not_after);
	emit_text(out, span_cut(record->hello.subject, TLS_SUBJECT_MAX));
}

/* The identity, within ESTABLISHED. */

/* Stores what fits: check_tls_identity() refuses a count that is higher. */
static void read_identity(struct bytes *in, struct tls_identity *ret)
{
	ret->method = take_u8(in);
	ret->subject = take_text(in);
	ret->fingerprint = take_text(in);
	ret->psk = take_text(in);
	ret->n_names = take_u16(in);
	for (size_t i = 0; i < ret->n_names && i < TLS_MAX_NAMES; i++)
		ret->names[i] = take_text(in);
}

static bool is_fingerprint(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		if (!(text.at[i] >= '0' && text.at[i] <= '9') &&
		    !(text.at[i] >= 'a' && text.at[i] <= 'f'))
			return false;
	return text.len == TLS_FINGERPRINT_LEN;
}

/* What each method has, and nothing else. */
static const char *check_method(const struct tls_identity *identity)
{
	bool has_certificate = identity->subject.len || identity->fingerprint.len ||
		identity->n_names;

	switch (identity->method) {
	case TLS_METHOD_ANONYMOUS:
		return has_certificate || identity->psk.len ? "nobody has a name" : NULL;
	case TLS_METHOD_X509:
		if (!is_fingerprint(identity->fingerprint))
			return "the fingerprint is not a SHA-256";
		return identity->psk.len ? "a certificate has the identity of a key" : NULL;
	case TLS_METHOD_PSK:
		if (identity->psk.len == 0)
			return "the key has no identity";
		return has_certificate ? "a pre-shared key has a certificate" : NULL;
	default:
		return "the method is unknown";
	}
}

static const char *check_names(const struct tls_identity *identity, size_t *ret_total)
{
	*ret_total = 0;
	for (size_t i = 0; i < identity->n_names; i++) {
		const char *fault = check_text(identity->names[i], TLS_NAME_MAX);

		if (fault)
			return fault;
		if (identity->names[i].len == 0)
			return "an alternative name is empty";
		*ret_total += identity->names[i].len;
	}
	return NULL;
}

const char *check_tls_identity(const struct tls_identity *identity)
{
	const char *fault;
	size_t total;

	if (identity->n_names > TLS_MAX_NAMES)
		return "too many alternative names";
	fault = check_method(identity);
	if (!fault)
		fault = check_text(identity->subject, TLS_SUBJECT_MAX);
	if (!fault)
		fault = check_text(identity->psk, TLS_NAME_MAX);
	if (!fault)
		fault = check_names(identity, &total);
	if (fault)
		return fault;
	total += identity->subject.len + identity->fingerprint.len + identity->psk.len;
	return total <= TLS_IDENTITY_MAX ? NULL : "the identity is too long";
}

static void write_identity(struct emit *out, const struct tls_identity *identity)
{
	assert(identity->n_names <= TLS_MAX_NAMES);

	emit_u8(out, identity->method);
	emit_text(out, identity->subject);
	emit_text(out, identity->fingerprint);
	emit_text(out, identity->psk);
	emit_u16(out, identity->n_names);
	for (size_t i = 0; i < identity->n_names; i++)
		emit_text(out, identity->names[i]);
}

/* ESTABLISHED */

static void read_established(struct bytes *in, struct tls_record *ret)
{
	ret->established.request = take_u32(in);
	ret->established.session = take_u64(in);
	ret->established.version = take_text(in);
	ret->established.cipher = take_text(in);
	read_identity(in, &ret->established.identity);
}

static const char *check_established(const struct tls_record *record)
{
	const struct tls_established *established = &record->established;
	const char *fault;

	if (established->request == 0 || established->session == 0)
		return "the session has no number, or answers no request";
	fault = check_text(established->version, TLS_WORD_MAX);
	if (!fault)
		fault = check_text(established->cipher, TLS_WORD_MAX);
	return fault ? fault : check_tls_identity(&established->identity);
}

static void write_established(struct emit *out, const struct tls_record *record)
{
	emit_u32(out, record->established.request);
	emit_u64(out, record->established.session);
	emit_text(out, span_cut(record->established.version, TLS_WORD_MAX));
	emit_text(out, span_cut(record->established.cipher, TLS_WORD_MAX));
	write_identity(out, &record->established.identity);
}

/* FAILED */

static void read_failed(struct bytes *in, struct tls_record *ret)
{
	ret->failed.request = take_u32(in);
	ret->failed.reason = take_u32(in);
	ret->failed.sentence = take_text(in);
}

static const char *check_failed(const struct tls_record *record)
{
	if (record->failed.request == 0)
		return "the failure names no request";
	if (record->failed.reason == REASON_NONE || record->failed.reason >= N_REASONS)
		return "the reason is unknown";
	return check_text(record->failed.sentence, TLS_SENTENCE_MAX);
}

static void write_failed(struct emit *out, const struct tls_record *record)
{
	emit_u32(out, record->failed.request);
	emit_u32(out, record->failed.reason);
	emit_text(out, span_cut(record->failed.sentence, TLS_SENTENCE_MAX));
}

/* ENDED */

static void read_ended(struct bytes *in, struct tls_record *ret)
{
	ret->ended.session = take_u64(in);
	ret->ended.reason = take_u32(in);
}

static const char *check_ended(const struct tls_record *record)
{
	if (record->ended.session == 0)
		return "the session that ended has no number";
	if (record->ended.reason == REASON_NONE || record->ended.reason >= N_REASONS)
		return "the reason is unknown";
	return NULL;
}

static void write_ended(struct emit *out, const struct tls_record *record)
{
	emit_u64(out, record->ended.session);
	emit_u32(out, record->ended.reason);
}

/* START */

static void read_start(struct bytes *in, struct tls_record *ret)
{
	ret->start.request = take_u32(in);
	ret->start.deadline = take_u32(in);
	ret->start.certificate = take_u8(in);
	ret->start.peer = take_text(in);
}

static const char *check_start(const struct tls_record *record)
{
	const struct tls_start *start = &record->start;

	if (start->request == 0)
		return "the start has no number";
	if (start->deadline == 0 || start->deadline > TLS_DEADLINE_MAX)
		return "the deadline is not within an hour";
	if (start->certificate >= N_TLS_CERTIFICATES)
		return "what the client must show is unknown";
	return check_text(start->peer, TLS_PEER_MAX);
}

static void write_start(struct emit *out, const struct tls_record *record)
{
	emit_u32(out, record->start.request);
	emit_u32(out, record->start.deadline);
	emit_u8(out, record->start.certificate);
	emit_text(out, span_cut(record->start.peer, TLS_PEER_MAX));
}

/* CONNECT */

static void read_connect(struct bytes *in, struct tls_record *ret)
{
	ret->connect.request = take_u32(in);
	ret->connect.deadline = take_u32(in);
	ret->connect.host = take_text(in);
	ret->connect.peer = take_text(in);
}

static const char *check_connect(const struct tls_record *record)
{
	const struct tls_connect *connect = &record->connect;
	const char *fault;

	if (connect->request == 0)
		return "the connection has no number";
	if (connect->deadline == 0 || connect->deadline > TLS_DEADLINE_MAX)
		return "the deadline is not within an hour";
	if (connect->host.len == 0)
		return "the server has no name";
	fault = check_text(connect->host, TLS_HOST_MAX);
	return fault ? fault : check_text(connect->peer, TLS_PEER_MAX);
}

static void write_connect(struct emit *out, const struct tls_record *record)
{
	emit_u32(out, record->connect.request);
	emit_u32(out, record->connect.deadline);
	emit_text(out, record->connect.host);
	emit_text(out, span_cut(record->connect.peer, TLS_PEER_MAX));
}

/* CANCEL */

static void read_cancel(struct bytes *in, struct tls_record *ret)
{
	ret->cancel.request = take_u32(in);
}

static const char *check_cancel(const struct tls_record *record)
{
	return record->cancel.request ? NULL : "what is cancelled has no number";
}

static void write_cancel(struct emit *out, const struct tls_record *record)
{
	emit_u32(out, record->cancel.request);
}

static const struct row {
	void (*read)(struct bytes *in, struct tls_record *ret);
	const char *(*check)(const struct tls_record *record);
	void (*write)(struct emit *out, const struct tls_record *record);
} rows[] = {
	[TLS_HELLO] = { read_hello, check_hello, write_hello },
	[TLS_ESTABLISHED] = { read_established, check_established, write_established },
	[TLS_FAILED] = { read_failed, check_failed, write_failed },
	[TLS_ENDED] = { read_ended, check_ended, write_ended },
	[TLS_START] = { read_start, check_start, write_start },
	[TLS_CONNECT] = { read_connect, check_connect, write_connect },
	[TLS_CANCEL] = { read_cancel, check_cancel, write_cancel },
};

static const struct row *row_of(unsigned type)
{
	return type < ARRAY_LEN(rows) && rows[type].read ? &rows[type] : NULL;
}

const char *decode_tls_record(struct bytes in, struct tls_record *ret)
{
	struct tls_record record = { 0 };
	const struct row *row;
	struct bytes body;
	uint8_t type;
	const char *fault = take_frame(in, TLS_CHANNEL_VERSION, &type, &body);

	if (fault)
		return fault;
	row = row_of(type);
	if (!row)
		return "the type is unknown";

	record.type = type;
	row->read(&body, &record);
	if (!bytes_all_taken(&body))
		return "a field's length is wrong";
	fault = row->check(&record);
	if (fault)
		return fault;
	*ret = record;
	return NULL;
}

void emit_tls_record(struct emit *out, const struct tls_record *record)
{
	const struct row *row = row_of(record->type);
	size_t body_at;

	assert(row);

	body_at = emit_frame_begin(out, TLS_CHANNEL_VERSION, (uint8_t) record->type);
	row->write(out, record);
	emit_frame_end(out, body_at);
}
