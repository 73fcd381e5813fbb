/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file of pre-shared keys, as psktool(1) writes it: lines of NAME:KEY.  Nothing of a key is
 * in a sentence.
 */
#pragma once

#include <stdbool.h>

#include "base/failure.h"

/* Whether there is a key for NAME. */
bool tls_psk_has(const char *path, const char *name);

/* A new one: in `path`, with those of others, and alone in `own`. */
int tls_psk_make(const char *path, const char *own, const char *name, struct failure *why);

/* 1: it had one, 0: it had none. */
int tls_psk_remove(const char *path, const char *name, struct failure *why);
