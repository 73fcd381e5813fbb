/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The records between negotiator and nbd-tls. */
#include "record.h"

#include "wire/tls-channel.h"

static void require_identity(const struct tls_identity *id, const uint8_t *at, size_t len)
{
	size_t total = id->subject.len + id->fingerprint.len + id->psk.len;

	REQUIRE(id->n_names <= TLS_MAX_NAMES);
	require_text(id->subject, TLS_SUBJECT_MAX, at, len);
	require_text(id->psk, TLS_NAME_MAX, at, len);
	require_text(id->fingerprint, TLS_FINGERPRINT_LEN, at, len);
	for (size_t i = 0; i < id->n_names; i++) {
		require_text(id->names[i], TLS_NAME_MAX, at, len);
		REQUIRE(id->names[i].len > 0);
		total += id->names[i].len;
	}
	REQUIRE(total <= TLS_IDENTITY_MAX);
	REQUIRE((id->method == TLS_METHOD_X509) == (id->fingerprint.len == TLS_FINGERPRINT_LEN));
	REQUIRE((id->method == TLS_METHOD_PSK) == (id->psk.len > 0));
	REQUIRE(id->method == TLS_METHOD_X509 || (!id->subject.len && !id->n_names));
}

static void require_record(const struct tls_record *record, const uint8_t *at, size_t len)
{
	switch (record->type) {
	case TLS_HELLO:
		REQUIRE(record->hello.can < 8 && record->hello.not_after <= INT64_MAX);
		return require_text(record->hello.subject, TLS_SUBJECT_MAX, at, len);
	case TLS_ESTABLISHED:
		REQUIRE(record->established.request != 0 && record->established.session != 0);
		require_text(record->established.version, TLS_WORD_MAX, at, len);
		require_text(record->established.cipher, TLS_WORD_MAX, at, len);
		return require_identity(&record->established.identity, at, len);
	case TLS_FAILED:
		REQUIRE(record->failed.request != 0);
		REQUIRE(record->failed.reason > 0 && record->failed.reason < N_REASONS);
		return require_text(record->failed.sentence, TLS_SENTENCE_MAX, at, len);
	case TLS_ENDED:
		REQUIRE(record->ended.session != 0);
		REQUIRE(record->ended.reason > 0 && record->ended.reason < N_REASONS);
		return;
	case TLS_START:
		REQUIRE(record->start.request != 0);
		REQUIRE(record->start.deadline > 0 && record->start.deadline <= TLS_DEADLINE_MAX);
		REQUIRE(record->start.certificate < N_TLS_CERTIFICATES);
		return require_text(record->start.peer, TLS_PEER_MAX, at, len);
	case TLS_CONNECT:
		REQUIRE(record->connect.request != 0);
		REQUIRE(record->connect.deadline > 0 && record->connect.deadline <= TLS_DEADLINE_MAX);
		REQUIRE(record->connect.host.len > 0);
		require_text(record->connect.host, TLS_HOST_MAX, at, len);
		return require_text(record->connect.peer, TLS_PEER_MAX, at, len);
	case TLS_CANCEL:
		REQUIRE(record->cancel.request != 0);
		return;
	}
	REQUIRE(record->type == TLS_CANCEL);            /* the type is none of the above */
}

/* There is one form of each record: what is read is written as the same bytes. */
static void fuzz_record(const uint8_t *at, size_t len)
{
	static uint8_t buffer[TLS_RECORD_MAX];
	struct emit out = emit_into(buffer, sizeof buffer);
	struct tls_record record, before;

	memset(&record, 0x5a, sizeof record);
	memcpy(&before, &record, sizeof before);
	if (decode_tls_record(bytes_over(at, len), &record)) {
		REQUIRE(memcmp(&record, &before, sizeof record) == 0);
		return;
	}
	require_record(&record, at, len);
	emit_tls_record(&out, &record);
	REQUIRE(emit_fits(&out));
	REQUIRE(out.len == len && memcmp(buffer, at, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
	fuzz_framed(at, len, TLS_CHANNEL_VERSION, fuzz_record);
	return 0;
}
