/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Why something that was asked for is not to be had: for the client and for the log. */
#pragma once

#include "base/attr.h"
#include "wire/channel.h"
#include "wire/reason.h"

struct refusal {
	enum reason reason;     /* REASON_NONE: it did not refuse */
	char sentence[CHANNEL_SENTENCE_MAX + 1];
};

/* What does not fit is cut off. */
void refuse(struct refusal *ret, enum reason reason, const char *fmt, ...) PRINTF(3, 4);
