/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Takes whole entries to whom reads them, the journal or who is behind stderr, and says how many
 * did not get there.
 *
 * Who reads may have stopped reading, as a journal does whose disk hangs; clients shall not wait
 * with it.  So the main thread waits a moment, and then no more until an entry gets through again;
 * other threads never wait.  A program that only a person waits for may wait as long as it takes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The calling thread is the one that may wait a moment. */
void log_sink_is_main_thread(void);

/* It may wait without end. */
void log_sink_waits(void);

/* 0; -EAGAIN: it is lost, and counted; -errno: `fd` takes no such thing, and nothing is counted. */
int log_sink_write(int fd, const char *entry, size_t len);

/* How many have been lost since the last time somebody asked. */
unsigned log_sink_take_lost(void);
void log_sink_give_back_lost(unsigned n);
bool log_sink_has_lost(void);
