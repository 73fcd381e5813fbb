/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One export's file, exports.d/LABEL.conf: what every key means and its default.
 *
 * All programs read the same file with this reader: the negotiator wants the name and
 * the description, the export its device, nbdctl all of it.  nbd-export.conf(5) and
 * docs/configuration.md describe the keys for people.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"

#define EXPORT_LABEL_MAX 64u            /* bytes; a label is also a unit's instance */
#define EXPORT_NAME_MAX 4096u           /* bytes; proto.md, "string" limits */
#define EXPORT_MEMORY_DEFAULT (64u << 20)       /* for each thread */
#define EXPORT_MEMORY_MIN (48u << 20)   /* each: one whole 32 MiB reply and room for the others */
#define EXPORT_THREADS_MAX 64u
#define EXPORT_FILE_SUFFIX ".conf"

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
	uint32_t max_connections;       /* MaxConnections=: 256; 0 is refused */
	uint32_t threads;               /* Threads=: request loops, 1 */
	enum export_engine engine;      /* Engine=: auto, io_uring or threads */
	char *allow;                    /* Allow=: rules, see base/access.h; "" if not given */
	uint32_t max_per_source;        /* MaxConnectionsPerSource=: 0, as many as fit */
	uint32_t idle_timeout;          /* IdleTimeout=: seconds without clients; 0, never */
	bool start_at_boot;             /* StartAtBoot=: no, with the first client */
};

/* As setting_bool() and the like, for Engine=. */
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
 * cannot be a label: letters, digits and ":-_.\", not starting with a dot, to 64 bytes. */
int export_label_of(const char *path, char **ret, struct failure *why);
int export_label_check(const char *label, struct failure *why);
bool export_file_has_suffix(const char *name);

/* Writes the same as a file, for `nbdctl serve` and `nbdctl add`: only what differs
 * from the defaults, in a file that appears whole (rename). */
int export_settings_write(const char *dir, const struct export_settings *s, struct failure *why);

/* The whole catalogue: every *.conf of a folder, by label.  A bad file is passed to
 * `bad` with its sentence and skipped.  -errno only when the folder cannot be read. */
int export_settings_read_folder(const char *dir, struct export_settings **ret, size_t *ret_n,
                                void (*bad)(void *userdata, const char *path,
                                            const struct failure *why),
                                void *userdata, struct failure *why);
