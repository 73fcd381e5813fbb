/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One export's file, exports.d/LABEL.conf: what every key means and its default.
 *
 * All programs read the same file with this reader: the negotiator wants the name and
 * the description, the export its device, nbdctl all of it.  nbd-export.conf(5)
 * describes the keys for people.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap-settings.h"
#include "base/failure.h"
#include "base/tls-settings.h"

#define EXPORT_LABEL_MAX 64u            /* bytes; a label is also a unit's instance */
#define EXPORT_NAME_MAX 4096u           /* bytes; proto.md, "string" limits */
#define EXPORT_MEMORY_DEFAULT (64u << 20)       /* for each thread */
#define EXPORT_MEMORY_MIN (48u << 20)   /* each: one whole 32 MiB reply and room for the others */
#define EXPORT_THREADS_MAX 64u

/* A request loop counts its receive buffers in 16 bits: one for each client, and those that the
 * kernel may hold at once. */
#define EXPORT_RECEIVE_BUFFERS (1u << 16)
#define EXPORT_RECEIVE_GROUP 64u
#define EXPORT_CONNECTIONS_MAX (EXPORT_RECEIVE_BUFFERS - EXPORT_RECEIVE_GROUP)
#define EXPORT_FILE_SUFFIX ".conf"
#define EXPORT_FILE_UNFINISHED ".conf.new"      /* after ".LABEL": being written */

/* What the request loop runs on. */
enum export_engine {
	EXPORT_ENGINE_AUTO,             /* io_uring, or threads where there is none */
	EXPORT_ENGINE_URING,
	EXPORT_ENGINE_THREADS,
};

struct export_settings {
	char *label;                    /* from the file's name */
	char *name;                     /* Name=: on the wire; the label if not given */
	char *device;                   /* Device=: absolute path; required */
	char *description;              /* Description=: "" if not given */
	bool read_only;                 /* ReadOnly=: no */
	bool direct;                    /* Direct=: yes, O_DIRECT; no, the page cache */
	bool shared;                    /* Shared=: no; yes lets a read-only export open what is
	                                 * mounted or in use elsewhere */
	bool is_default;                /* Default=: no; yes answers to the empty name */
	uint64_t memory;                /* Memory=: bytes for requests in flight; 0 if not given */
	uint32_t max_connections;       /* MaxConnections=: 256; 1 to EXPORT_CONNECTIONS_MAX */
	uint32_t threads;               /* Threads=: request loops, 1 */
	enum export_engine engine;      /* Engine=: auto, io_uring or threads */
	char *allow;                    /* Allow=: rules, see base/access.h; "" if not given */
	enum tls_policy tls;            /* TLS=: what negotiator.conf says */
	char *identity;                 /* Identity=: a rule each line, see base/identity.h; "" if not
	                                 * given */
	uint32_t max_per_source;        /* MaxConnectionsPerSource=: 0, as many as fit */
	bool single_writer;             /* SingleWriter=: no; yes lets one client write at a time */
	uint32_t idle_timeout;          /* IdleTimeout=: seconds without clients; 0, never */
	bool start_at_boot;             /* StartAtBoot=: no, with the first client */
	bool resize_reconnect;          /* ResizeReconnect=: no; yes closes clients when it grows */
	char *bitmaps;                  /* Bitmap=: names, see base/bitmap-settings.h; "" if not given */
	char *bitmap_store;             /* BitmapStore=: absolute path of a file; "" if not given */
	uint64_t bitmap_granularity;    /* BitmapGranularity=: bytes, 64K */
	uint64_t bitmap_region;         /* BitmapRegion=: bytes, 4M */
	uint32_t bitmap_arm_limit;      /* BitmapArmLimit=: regions, 1024 */
	uint32_t bitmap_cold;           /* BitmapCold=: seconds, 5 */
	enum export_on_bitmap_error on_bitmap_error;    /* OnBitmapError=: lost */
};

/* What a file that says nothing means; strings are not set. */
#define EXPORT_MAX_CONNECTIONS_DEFAULT 256u
#define EXPORT_SETTINGS_DEFAULTS \
	{ \
		.direct = true, \
		.max_connections = EXPORT_MAX_CONNECTIONS_DEFAULT, \
		.threads = 1, \
		.bitmap_granularity = BITMAP_GRANULARITY_DEFAULT, \
		.bitmap_region = BITMAP_REGION_DEFAULT, \
		.bitmap_arm_limit = BITMAP_ARM_LIMIT_DEFAULT, \
		.bitmap_cold = BITMAP_COLD_DEFAULT, \
	}

/* As setting_u32() and setting_bool(), for MaxConnections= and Engine=. */
int export_connections_parse(const char *value, void *u32, struct failure *why);
int export_engine_parse(const char *value, void *engine, struct failure *why);

/* Memory=, or what it is when not given: 64 MiB for each thread. */
uint64_t export_settings_memory(const struct export_settings *s);

/*
 * Reads DIR/LABEL.conf.  `ret` is untouched on failure; on success it owns its strings:
 * export_settings_clear().
 */
int export_settings_read(const char *path, struct export_settings *ret, struct failure *why);
void export_settings_clear(struct export_settings *s);

/* A file's label: its base name without ".conf".  -EINVAL and a sentence for names that
 * cannot be a label: letters, digits and ":-_.\", not starting with a dot or a dash, to 64
 * bytes. */
int export_label_of(const char *path, char **ret, struct failure *why);
int export_label_check(const char *label, struct failure *why);
bool export_file_has_suffix(const char *name);

/* Writes the same as a file, for `nbdctl serve` and `nbdctl add`: only what differs
 * from the defaults, in a file that appears whole (rename).  One writer at a time; one that is
 * killed leaves .LABEL.conf.new, at most. */
int export_settings_write(const char *dir, const struct export_settings *s, struct failure *why);

/* The whole catalogue: every *.conf of a folder, by label.  A bad file is passed to
 * `bad` with its sentence and skipped.  -errno only when the folder cannot be read. */
int export_settings_read_folder(const char *dir, struct export_settings **ret, size_t *ret_n,
                                void (*bad)(void *userdata, const char *path,
                                            const struct failure *why),
                                void *userdata, struct failure *why);
