/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log-attach.h"

#include <stddef.h>

#include "base/deferred.h"
#include "base/log.h"

static bool has_lost(void *userdata)
{
	(void) userdata;
	return log_has_lost();
}

/* That entry may get lost, too: then it is due again. */
static void tell_lost(void *userdata)
{
	(void) userdata;
	log_tell_lost();
}

int log_attach(sd_event *event)
{
	return deferred_add(event, &(struct deferred) { .is_due = has_lost, .act = tell_lost });
}
