/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What programs that read from strangers give up: descriptors, capabilities, files.  Their
 * system calls they filter by themselves, for each needs others.
 *
 * All of it holds for the calling thread and the threads that it makes, and for good.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"

/* A build with AddressSanitizer is for finding mistakes, not for serving strangers: there the
 * leak check at the end must read /proc and trace its own threads. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Fails when an open descriptor refers to a block device or a folder: it is a way around every
 * rule.  `who`, in "which the negotiator must not have", is us. */
int confine_check_descriptors(const char *who, struct failure *why);

/* No new privileges, no capabilities, no core dumps or tracing. */
int confine_privileges(struct failure *why);

/* No file by name but, to be read, those beneath `folders` (NULL, or at most CONFINE_FOLDERS_MAX paths
 * with a NULL behind the last), where the kernel has Landlock: `ret_is_on`. */
#define CONFINE_FOLDERS_MAX 16u
int confine_files(const char *const *folders, bool *ret_is_on, struct failure *why);

/* The same of files and folders, some of which may be written, or what lies in them made and
 * removed.  One that does not exist is none. */
struct confine_path {
	const char *path;
	bool may_write;
};

int confine_paths(const struct confine_path *paths, size_t n, bool *ret_is_on, struct failure *why);
