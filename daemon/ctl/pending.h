/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Those who wait at the channel of an export that could not start.
 *
 * An export that can, answers them itself.  One that was killed leaves them waiting in the
 * socket's queue, from where they would start it again and again.
 */
#pragma once

/* Accepts everybody who waits at `channel`, sends FAILED with the sentence, and hangs up. */
void pending_refuse(int channel, const char *sentence);
