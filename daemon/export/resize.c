/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/resize.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/text.h"
#include "dirty/tracker.h"
#include "export/export.h"

/* Bitmaps cannot follow while the export runs: what they would not see is not offered. */
static bool is_bound(const struct export *export)
{
	struct bitmap_info bitmaps[BITMAPS_MAX];

	return export->tracker && tracker_list(export->tracker, bitmaps) > 0;
}

static void tell(const struct export *export, uint64_t was, uint64_t now)
{
	char old[32], new[32];

	format_size(was, old, sizeof old);
	format_size(now, new, sizeof new);
	if (now > was)
		log_event(EVENT_DEVICE_RESIZED, NULL, "%s has grown from %s to %s (%" PRIu64 " bytes): "
		          "clients that connect from now on can use it all, others keep their size",
		          export->device.path, old, new, now);
	else
		log_about(LOG_CRIT, &(struct subject) { .event = EVENT_DEVICE_RESIZED }, "%s has shrunk "
		          "from %s to %s (%" PRIu64 " bytes): what lay behind that is lost, and clients "
		          "that are connected get errors there", export->device.path, old, new, now);
}

bool export_look_at_size(struct export *export)
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
	tell(export, was, dev->size);
	return dev->size != was;
}
