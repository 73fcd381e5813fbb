/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the commands do: one function per row of the table in command.c.  Each gets a slot
 * whose request passed command_check(), and answers it once, sooner or later, with
 * slot_answer() or by queueing its reply's pieces.  WRITE has none: its payload comes later, see
 * start_write_payload() in write.h.
 */
#pragma once

struct slot;

void start_read(struct slot *slot);             /* read.c */
void start_flush(struct slot *slot);            /* flush.c */
void start_trim(struct slot *slot);             /* zero.c */
void start_write_zeroes(struct slot *slot);     /* zero.c */
void start_cache(struct slot *slot);            /* cache.c */
void start_block_status(struct slot *slot);     /* status.c */
