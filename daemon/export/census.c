/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/census.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "export/admit.h"

int census_init(struct census *census, struct admission *admission, struct failure *why)
{
	struct export *export = admission->export;

	*census = (struct census) { .admission = admission };
	census->sheets = calloc(export->n_loops, sizeof *census->sheets);
	if (!census->sheets)
		return fail(why, ENOMEM, "cannot ask the request loops");
	census->n_sheets = export->n_loops;
	for (unsigned i = 0; i < census->n_sheets; i++)
		census->sheets[i] = (struct sheet) { .census = census, .loop = &export->loops[i] };
	return 0;
}

void census_deinit(struct census *census)
{
	for (unsigned i = 0; i < census->n_sheets; i++)
		free(census->sheets[i].lines);
	free(census->sheets);
	*census = (struct census) { 0 };
}

/* The main thread: a client's departure comes behind the sheet that still counts it. */
static void on_filled(struct letter *letter)
{
	struct sheet *sheet = container_of(letter, struct sheet, letter);
	struct census *census = sheet->census;

	for (unsigned i = 0; i < sheet->n; i++)
		((struct admitted *) sheet->lines[i].admitted)->seen = sheet->lines[i].figures;
	sheet->out = false;
	if (--census->n_out == 0)
		census->on_round(census);
}

/* The loop's thread. */
static void fill(struct letter *letter)
{
	struct sheet *sheet = container_of(letter, struct sheet, letter);
	struct loop *loop = sheet->loop;

	sheet->memory_used = loop->memory.shared_used;
	for (struct conn *conn = loop->conns; conn && sheet->n < sheet->room; conn = conn->next) {
		uint64_t floor = conn->holder.floor_taken ? loop->memory.floor_size : 0;

		sheet->memory_used += floor;
		sheet->lines[sheet->n++] = (struct line) {
			conn->admitted, { conn->stats, conn->n_slots, conn->holder.held + floor },
		};
	}
	sheet->oldest = ages_turn(&loop->ring.ages, monotonic_ns());
	sheet->letter.open = on_filled;
	mailbox_post(&loop->export->mail, &sheet->letter);
}

/* Clients arrive by letters that came before this one, so there are no more than that. */
static int make_room(struct sheet *sheet)
{
	unsigned want = sheet->loop->n_admitted;
	struct line *lines;

	if (want <= sheet->room)
		return 0;
	lines = realloc(sheet->lines, want * sizeof *lines);
	if (!lines)
		return -ENOMEM;
	sheet->lines = lines;
	sheet->room = want;
	return 0;
}

int census_ask(struct census *census)
{
	if (census->n_out)
		return 0;
	for (unsigned i = 0; i < census->n_sheets; i++)
		if (make_room(&census->sheets[i]) < 0)
			return -ENOMEM;
	census->began = monotonic_ns();
	census->n_out = census->n_sheets;
	for (unsigned i = 0; i < census->n_sheets; i++) {
		struct sheet *sheet = &census->sheets[i];

		sheet->n = 0;
		sheet->out = true;
		sheet->letter.open = fill;
		mailbox_post(&sheet->loop->ring.mail, &sheet->letter);
	}
	return 0;
}

static uint64_t blocked_since(const struct sheet *sheet)
{
	return atomic_load_explicit(&sheet->loop->ring.blocked_since, memory_order_relaxed);
}

bool census_excused(const struct census *census)
{
	for (unsigned i = 0; i < census->n_sheets; i++)
		if (census->sheets[i].out && !blocked_since(&census->sheets[i]))
			return false;
	return true;
}

uint64_t census_oldest(const struct census *census)
{
	uint64_t oldest = 0;

	for (unsigned i = 0; i < census->n_sheets; i++) {
		const struct sheet *sheet = &census->sheets[i];
		uint64_t since = sheet->out ? blocked_since(sheet) : sheet->oldest;

		if (since && (!oldest || since < oldest))
			oldest = since;
	}
	return oldest;
}

/* Of a loop whose sheet is out, nothing is known now. */
uint64_t census_memory(const struct census *census)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < census->n_sheets; i++)
		all += census->sheets[i].out ? 0 : census->sheets[i].memory_used;
	return all;
}
