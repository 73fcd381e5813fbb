/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/control-edit.h"

#include <stdio.h>
#include <string.h>

#include "base/bitmap-settings.h"

static int read_name(sd_bus_message *m, char ret[BITMAP_NAME_MAX + 1], sd_bus_error *error)
{
	struct failure why = { 0 };
	const char *name;
	int r = sd_bus_message_read_basic(m, 's', &name);

	if (r < 0)
		return r;
	if (bitmap_name_check(name, &why) < 0)
		return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "%s", why.text);
	(void) snprintf(ret, BITMAP_NAME_MAX + 1, "%s", name);
	return 0;
}

static int read_sources(sd_bus_message *m, struct edit_call *call, sd_bus_error *error)
{
	int r = sd_bus_message_read_strv(m, &call->sources);

	if (r < 0)
		return r;
	while (call->sources && call->sources[call->edit.n_sources])
		call->edit.n_sources++;
	if (call->edit.n_sources == 0 || call->edit.n_sources > BITMAPS_MAX)
		return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "1 to %u names are needed",
		                         BITMAPS_MAX);
	return 0;
}

static int read_group(sd_bus_message *m, struct edit *edit, sd_bus_error *error)
{
	const char *id;
	int r = sd_bus_message_read(m, "v", "s", &id);

	if (r < 0)
		return r;
	if (edit->kind != EDIT_CHECKPOINT || !group_id_check(id))
		return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "this is no group");
	(void) snprintf(edit->group, sizeof edit->group, "%s", id);
	return r;
}

/* "Force" and so on; one that we do not know must not be passed over. */
static int read_option(sd_bus_message *m, struct edit *edit, sd_bus_error *error)
{
	struct failure why = { 0 };
	const char *name;
	uint64_t size;
	int flag;
	int r = sd_bus_message_read_basic(m, 's', &name);

	if (r < 0)
		return r;
	if (strcmp(name, "Granularity") == 0) {
		r = sd_bus_message_read(m, "v", "t", &size);
		if (r >= 0 && bitmap_granularity_check(size, &why) < 0)
			return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "granularity: %s",
			                         why.text);
		edit->granularity = (uint32_t) size;
		return r;
	}
	if (strcmp(name, "Group") == 0)
		return read_group(m, edit, error);
	r = sd_bus_message_read(m, "v", "b", &flag);
	if (r < 0)
		return r;
	if (strcmp(name, "Disabled") == 0)
		edit->disabled = flag;
	else if (strcmp(name, "Force") == 0)
		edit->force = flag;
	else if (strcmp(name, "Held") == 0)
		edit->held = flag;
	else
		return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "there is no option %s", name);
	return 0;
}

static int read_options(sd_bus_message *m, struct edit *edit, sd_bus_error *error)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		r = read_option(m, edit, error);
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

int edit_call_read(struct edit_call *call, sd_bus_message *m, sd_bus_error *error)
{
	unsigned takes = call->method->takes;
	int r = 0;

	if (takes & TAKES_NAME)
		r = read_name(m, call->edit.name, error);
	if (r >= 0 && takes & TAKES_OTHER)
		r = read_name(m, call->edit.other, error);
	if (r >= 0 && takes & TAKES_SOURCES)
		r = read_sources(m, call, error);
	if (r >= 0 && takes & TAKES_OPTIONS)
		r = read_options(m, &call->edit, error);
	return r;
}
