/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Letters between threads: none lost, none twice, in order, and no more wake-ups than needed. */
#include "check.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/attr.h"
#include "export/mailbox.h"

#define N_POSTERS 8u
#define N_LETTERS 50000u        /* of each poster */
#define PATIENCE 20000          /* ms; only a lost wake-up waits for so long */

struct note {
	struct letter letter;
	unsigned poster, number;
	struct mailbox *answer_to;      /* posts itself again there, once */
};

static struct mailbox box;
static unsigned n_read;
static unsigned order_read[64];

static void start(void)
{
	struct failure why = { 0 };

	n_read = 0;
	CHECK_EQ("init", mailbox_init(&box, &why), 0);
}

static bool is_readable(int timeout)
{
	struct pollfd p = { .fd = box.event, .events = POLLIN };

	return poll(&p, 1, timeout) == 1;
}

static void on_note(struct letter *letter)
{
	struct note *note = container_of(letter, struct note, letter);

	if (n_read < ARRAY_LEN(order_read))
		order_read[n_read] = note->number;
	n_read++;
	if (note->answer_to)
		mailbox_post(take_ptr(note->answer_to), letter);
}

static void on_last_note(struct letter *letter)
{
	on_note(letter);
	free(container_of(letter, struct note, letter));
}

TEST(letters_are_opened_in_the_order_in_which_they_came)
{
	struct note notes[20];

	start();
	for (unsigned round = 0; round < 3; round++) {
		n_read = 0;
		for (unsigned i = 0; i < ARRAY_LEN(notes); i++) {
			notes[i] = (struct note) { .letter.open = on_note, .number = i };
			mailbox_post(&box, &notes[i].letter);
		}
		CHECK_EQ("before", n_read, 0);
		mailbox_empty(&box);
		CHECK_EQ("after", n_read, ARRAY_LEN(notes));
		for (unsigned i = 0; i < ARRAY_LEN(notes); i++)
			CHECK_EQ("order", order_read[i], i);
	}
	mailbox_deinit(&box);
}

TEST(only_the_first_letter_in_an_empty_box_wakes_the_owner)
{
	struct note notes[5];
	uint64_t n_wakes = 0;

	start();
	CHECK(!is_readable(0));
	for (unsigned i = 0; i < ARRAY_LEN(notes); i++) {
		notes[i] = (struct note) { .letter.open = on_note, .number = i };
		mailbox_post(&box, &notes[i].letter);
		CHECK(is_readable(0));
	}
	CHECK_EQ("read", read(box.event, &n_wakes, sizeof n_wakes), sizeof n_wakes);
	CHECK_EQ("wakes", n_wakes, 1);

	/* The owner has read the descriptor itself: that is as good. */
	mailbox_empty(&box);
	CHECK_EQ("opened", n_read, ARRAY_LEN(notes));
	CHECK(!is_readable(0));
	mailbox_post(&box, &notes[0].letter);
	CHECK(is_readable(0));
	mailbox_empty(&box);
	CHECK(!is_readable(0));
	mailbox_deinit(&box);
}

TEST(emptying_an_empty_box_does_not_block_and_opens_nothing)
{
	start();
	mailbox_empty(&box);
	mailbox_empty(&box);
	CHECK_EQ("opened", n_read, 0);
	CHECK(!is_readable(0));
	mailbox_deinit(&box);
}

TEST(a_letter_posted_while_another_is_opened_comes_next_time)
{
	struct note notes[2] = {
		{ .letter.open = on_note, .number = 7, .answer_to = &box },
		{ .letter.open = on_note, .number = 8 },
	};

	start();
	mailbox_post(&box, &notes[0].letter);
	mailbox_post(&box, &notes[1].letter);
	mailbox_empty(&box);
	CHECK_EQ("opened", n_read, 2);
	CHECK(is_readable(0));
	mailbox_empty(&box);
	CHECK_EQ("opened", n_read, 3);
	CHECK_EQ("again", order_read[2], 7);
	CHECK(!is_readable(0));
	mailbox_deinit(&box);
}

TEST(a_letter_that_only_says_look_is_in_the_box_once)
{
	struct note notes[2] = {
		{ .letter.open = on_note, .number = 1 }, { .letter.open = on_note, .number = 2 },
	};

	start();
	for (unsigned round = 1; round <= 3; round++) {
		n_read = 0;
		mailbox_post_once(&box, &notes[0].letter);
		mailbox_post_once(&box, &notes[0].letter);
		mailbox_post(&box, &notes[1].letter);
		mailbox_post_once(&box, &notes[0].letter);
		mailbox_empty(&box);
		CHECK_EQ("opened", n_read, 2);
		CHECK_EQ("first", order_read[0], 1);
		CHECK(!is_readable(0));
	}
	mailbox_deinit(&box);
}

TEST(a_letter_may_be_gone_once_it_is_opened)
{
	start();
	for (unsigned i = 0; i < 10; i++) {
		struct note *note = calloc(1, sizeof *note);

		if (!note)
			abort();
		note->letter.open = on_last_note;
		mailbox_post(&box, &note->letter);
	}
	mailbox_empty(&box);
	CHECK_EQ("opened", n_read, 10);
	mailbox_deinit(&box);
}

TEST(a_closed_box_may_be_closed_again)
{
	start();
	mailbox_deinit(&box);
	CHECK_EQ("descriptor", box.event, -1);
	mailbox_deinit(&box);
}

static struct note crowd[N_POSTERS][N_LETTERS];
static unsigned next_of[N_POSTERS];
static unsigned n_out_of_order;
static pthread_barrier_t all_there;

static void on_crowd_note(struct letter *letter)
{
	struct note *note = container_of(letter, struct note, letter);

	n_out_of_order += note->number != next_of[note->poster]++;
	n_read++;
}

static void *post_all(void *userdata)
{
	struct note *notes = userdata;

	(void) pthread_barrier_wait(&all_there);
	for (unsigned i = 0; i < N_LETTERS; i++)
		mailbox_post(&box, &notes[i].letter);
	return NULL;
}

/* Sleeps whenever the box is empty, so a wake-up that is lost shows. */
TEST(many_posters_lose_nothing_and_each_keeps_its_order)
{
	pthread_t threads[N_POSTERS];

	start();
	if (pthread_barrier_init(&all_there, NULL, N_POSTERS) != 0)
		abort();
	for (unsigned p = 0; p < N_POSTERS; p++) {
		for (unsigned i = 0; i < N_LETTERS; i++)
			crowd[p][i] = (struct note) {
				.letter.open = on_crowd_note, .poster = p, .number = i,
			};
		if (pthread_create(&threads[p], NULL, post_all, crowd[p]) != 0)
			abort();
	}
	while (n_read < N_POSTERS * N_LETTERS && is_readable(PATIENCE))
		mailbox_empty(&box);
	for (unsigned p = 0; p < N_POSTERS; p++) {
		(void) pthread_join(threads[p], NULL);
		CHECK_EQ("of one poster", next_of[p], N_LETTERS);
	}
	CHECK_EQ("opened", n_read, N_POSTERS * N_LETTERS);
	CHECK_EQ("out of order", n_out_of_order, 0);
	(void) pthread_barrier_destroy(&all_there);
	mailbox_deinit(&box);
}
