/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clocks, latencies in print, and giving up. */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

void give_up(const char *format, ...)
{
	va_list arguments;

	fflush(stdout);
	fputs("nbd-load: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

void *allocate(size_t n, size_t size)
{
	void *memory = calloc(n ? n : 1, size);

	if (!memory)
		give_up("no memory for %zu times %zu bytes", n, size);
	return memory;
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

static double seconds_of(struct timeval time)
{
	return (double) time.tv_sec + (double) time.tv_usec / 1e6;
}

double cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void) setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static double micros(uint64_t ns)
{
	return (double) ns / 1e3;
}

static double mean_micros(const struct histogram *latency)
{
	return latency->n ? (double) latency->sum / (double) latency->n / 1e3 : 0;
}

void print_latency_json(const struct histogram *latency)
{
	static const struct {
		const char *name;
		double share;
	} quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};

	printf("\"latency_us\":{\"min\":%.3f,\"mean\":%.3f", micros(latency->min),
	       mean_micros(latency));
	for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
		printf(",\"%s\":%.3f", quantiles[i].name,
		       micros(histogram_quantile(latency, quantiles[i].share)));
	printf(",\"max\":%.3f}", micros(latency->max));
}

void print_latency_line(const struct histogram *latency)
{
	printf("latency us: min %.1f, p50 %.1f, p99 %.1f, max %.1f", micros(latency->min),
	       micros(histogram_quantile(latency, 0.5)), micros(histogram_quantile(latency, 0.99)),
	       micros(latency->max));
}
