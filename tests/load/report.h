/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every verb needs to tell how it went: clocks, the latency object of the JSON, and the
 * end of the program when nothing sensible can follow.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "histogram.h"

/* Says what is wrong on stderr and exits with status 1. */
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Zeroed memory, or the end. */
void *allocate(size_t n, size_t size);

uint64_t now_ns(void);

/* User and system time of this process so far. */
double cpu_seconds(void);

/* Allows as many descriptors as the system lets this process have. */
void raise_descriptor_limit(void);

/* "latency_us":{...} without a comma after it */
void print_latency_json(const struct histogram *latency);

/* min, p50, p99 and max, for people */
void print_latency_line(const struct histogram *latency);
