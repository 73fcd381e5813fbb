/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How systemd writes paths: in units' names, and as words in unit files.
 */
#pragma once

#include <stddef.h>

#define UNIT_NAME_SIZE 256u             /* systemd's limit, and that of a file's name */

/*
 * The unit that stands for an absolute path: "/dev/vg0/web-1" and ".device" give
 * "dev-vg0-web\x2d1.device", as systemd-escape(1) does.  -EINVAL for a path that is not absolute
 * or goes through "..", -ENAMETOOLONG when `ret` is too small; `ret` is then of no use.
 */
int unit_name_of_path(const char *path, const char *suffix, char *ret, size_t size);

/*
 * `text` in quotes, so that lists of paths in unit files take it as one word: no specifiers, no
 * escapes.  -ENAMETOOLONG when `ret` is too small; twice the length and 3 more suffice.  -EINVAL
 * for control characters, which no line can hold.
 */
int unit_word(const char *text, char *ret, size_t size);
