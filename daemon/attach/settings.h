/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The files of attach.d: one for each device that nbd-attach keeps attached, [Attach] Key=value. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"

struct attach_settings {
	char *uri;
	char *device;                   /* NULL: the first that is free */
	uint32_t connections;
	uint32_t timeout;
	uint32_t dead_timeout;
	bool read_only;
	bool load_module;
};

/* Everything is checked that can be without asking anybody. */
int attach_settings_read(const char *path, struct attach_settings *ret, struct failure *why);
void attach_settings_clear(struct attach_settings *s);
