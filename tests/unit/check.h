/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The whole unit test harness.
 *
 * TEST(name) { ... } registers itself; check.c brings main(), which runs them all and exits
 * with 1 when a check failed.  A failed check is printed and the test goes on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct test {
	const char *name;
	void (*run)(void);
	struct test *next;
};

void test_add(struct test *test);
void check_that(const char *file, int line, bool held, const char *what);
void check_equal(const char *file, int line, const char *where, const char *what, long long got,
                 long long want);
void check_text(const char *file, int line, const char *where, const char *got, const char *want);

#define TEST(test_name)                                                       \
	static void test_name(void);                                          \
	static struct test entry_##test_name = { #test_name, test_name, NULL };  \
	__attribute__((constructor)) static void add_##test_name(void)        \
	{                                                                     \
		test_add(&entry_##test_name);                                 \
	}                                                                     \
	static void test_name(void)

#define CHECK(condition) check_that(__FILE__, __LINE__, (condition), #condition)

/* Integers; `where` says which row of a table this is. */
#define CHECK_EQ(where, got, want) \
	check_equal(__FILE__, __LINE__, (where), #got, (long long) (got), (long long) (want))

/* Strings; NULL equals NULL only. */
#define CHECK_STR(where, got, want) check_text(__FILE__, __LINE__, (where), (got), (want))

/* Payloads are written as the bytes on the wire, so a reader can check them by eye
 * against the protocol's text; integers are big-endian by construction. */
#define U16(v) (uint8_t) ((v) >> 8 & 0xff), (uint8_t) ((v) & 0xff)
#define U32(v) U16((v) >> 16 & 0xffff), U16((v) & 0xffff)
#define U64(v) U32((uint64_t) (v) >> 32 & 0xffffffff), U32((uint64_t) (v) & 0xffffffff)
#define BYTES(...) (const uint8_t[]) { __VA_ARGS__ }, sizeof((const uint8_t[]) { __VA_ARGS__ })
