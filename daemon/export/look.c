/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/look.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/text.h"
#include "dirty/tracker.h"
#include "export/conn.h"

/* Bitmaps cannot follow while the export runs: what they would not see is not offered. */
static bool is_bound(const struct export *export)
{
	struct bitmap_info bitmaps[BITMAPS_MAX];

	return export->tracker && tracker_list(export->tracker, bitmaps) > 0;
}

static void tell_size(const struct export *export, uint64_t was, uint64_t now)
{
	const char *path = export->device.path;
	char old[32], new[32];

	format_size(was, old, sizeof old);
	format_size(now, new, sizeof new);
	if (now > was)
		log_event(EVENT_DEVICE_RESIZED, NULL, "%s has grown from %s to %s (%" PRIu64 " bytes): "
		          "clients that connect from now on can use it all; %s", path, old, new, now,
		          export->settings->resize_reconnect ?
		          "those that are connected are closed, to connect again (ResizeReconnect=)" :
		          "NBD cannot tell those that are connected, which keep their size");
	else
		log_about(LOG_CRIT, &(struct subject) { .event = EVENT_DEVICE_RESIZED }, "%s has shrunk "
		          "from %s to %s (%" PRIu64 " bytes): what lay behind that is lost, and clients "
		          "that are connected are closed", path, old, new, now);
}

bool client_is_outgrown(const struct conn *conn)
{
	const struct export *export = conn->export;

	return conn->size > export->device.size || conn->offered < export->least_offer;
}

/* Clients that this does not suit are the loops' to close. */
static void apply_size(struct export *export)
{
	uint64_t size = export->device.size;

	if (export->settings->resize_reconnect || export->least_offer > size)
		export->least_offer = size;
	for (unsigned i = 0; i < export->n_loops; i++)
		loop_check_sizes(&export->loops[i]);
}

static bool look_at_size(struct export *export)
{
	struct device *dev = &export->device;
	uint64_t was = dev->size, now;

	if (!device_size_has_changed(dev, &now))
		return false;
	if (now > was && is_bound(export)) {
		log_event(EVENT_DEVICE_RESIZED, NULL, "%s has grown to %" PRIu64 " bytes, but the "
		          "export has bitmaps: it offers the new part after a restart", dev->path, now);
		return false;
	}
	device_resize(dev, now);
	if (dev->size == was)
		return false;
	if (dev->size < was && export->tracker)
		tracker_device_shrank(export->tracker);
	tell_size(export, was, dev->size);
	apply_size(export);
	return true;
}

static bool look_at_read_only(struct export *export)
{
	struct device *dev = &export->device;
	bool was = dev->read_only;

	if (!device_read_only_has_changed(dev))
		return false;
	if (dev->read_only_seen)
		log_event(EVENT_DEVICE_READ_ONLY, NULL, "%s has become read-only, and so has the export: "
		          "writes of clients that are connected fail", dev->path);
	else
		log_event(EVENT_DEVICE_WRITABLE, NULL, "%s can be written again%s", dev->path,
		          dev->read_only ? "; the export, which began without that, can after a restart" :
		          ": clients that were connected before can go on, new ones are told so");
	return dev->read_only != was;
}

bool export_look(struct export *export)
{
	bool resized = look_at_size(export);

	return look_at_read_only(export) || resized;
}
