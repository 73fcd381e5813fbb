/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/pending.h"

#include <sys/socket.h>

#include "base/attr.h"
#include "base/fdpass.h"
#include "wire/channel.h"

void pending_refuse(int channel, const char *sentence)
{
	const struct channel_record record = {
		.type = CHANNEL_FAILED,
		.refused = { .reason = REASON_START_FAILED, .sentence = span_of(sentence) },
	};
	uint8_t bytes[CHANNEL_RECORD_MAX];
	struct emit out = emit_into(bytes, sizeof bytes);

	emit_channel_record(&out, &record);
	for (;;) {
		AUTO_FD peer = accept4(channel, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (peer < 0)
			return;         /* nobody is left */
		(void) send_record(peer, bytes, out.len, -1);
	}
}
