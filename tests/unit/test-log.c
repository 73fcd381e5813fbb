/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/log.h"

static int saved_stderr = -1;
static int pipe_out = -1;

/* Until capture_end(), stderr goes into a pipe. */
static void capture_start(void)
{
	int pipe_fds[2] = { -1, -1 };

	CHECK_EQ("", pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	saved_stderr = dup(STDERR_FILENO);
	(void) dup2(pipe_fds[1], STDERR_FILENO);
	close_fd(&pipe_fds[1]);
	pipe_out = pipe_fds[0];
}

static void capture_end(char *ret, size_t size)
{
	ssize_t len = read(pipe_out, ret, size - 1);

	ret[len > 0 ? len : 0] = '\0';
	(void) dup2(saved_stderr, STDERR_FILENO);
	close_fd(&saved_stderr);
	close_fd(&pipe_out);
}

TEST(a_line_carries_what_is_known)
{
	static const struct subject whole = { .export_label = "web1", .client = "192.0.2.1:4711",
	                                      .reason = "no-slot" };
	static const struct subject client = { .client = "[::1]:4711" };
	char got[4096];

	log_start("nbd-export", LOG_INFO);
	capture_start();
	log_info("%u things", 3);
	log_error("it failed");
	log_warning("odd");
	log_notice("new");
	log_debug("not seen");
	log_about(LOG_INFO, &whole, "refused");
	log_about(LOG_ERR, &client, "closed");
	capture_end(got, sizeof got);
	CHECK_STR("", got,
	          "nbd-export: 3 things\n"
	          "nbd-export: error: it failed\n"
	          "nbd-export: warning: odd\n"
	          "nbd-export: new\n"
	          "nbd-export[web1]: client 192.0.2.1:4711: refused (no-slot)\n"
	          "nbd-export: error: client [::1]:4711: closed\n");
}

TEST(the_level_decides_what_is_written)
{
	char got[256];

	log_start("p", LOG_INFO);
	CHECK_EQ("", log_level(), LOG_INFO);
	capture_start();
	log_set_level(LOG_DEBUG);
	log_debug("seen");
	log_set_level(LOG_WARNING);
	log_notice("not seen");
	capture_end(got, sizeof got);
	CHECK_STR("", got, "p: debug: seen\n");
	log_set_level(LOG_INFO);
}

TEST(an_entry_stays_one_line_whatever_is_in_it)
{
	static const struct subject odd = { .export_label = "a\nb", .client = "c\033[2J" };
	char got[256];

	log_start("p", LOG_INFO);
	capture_start();
	log_about(LOG_INFO, &odd, "x\ny%c", 0x80);
	capture_end(got, sizeof got);
	CHECK_STR("", got, "p[a\xef\xbf\xbd" "b]: client c\xef\xbf\xbd[2J: x\xef\xbf\xbdy"
	                   "\xef\xbf\xbd\n");
}

TEST(a_flood_is_cut_and_keeps_its_reason_and_newline)
{
	static const struct subject about = { .reason = "protocol" };
	static char flood[9000], got[9000];

	memset(flood, '\a', sizeof flood - 1);
	log_start("p", LOG_INFO);
	capture_start();
	log_about(LOG_INFO, &about, "%s", flood);
	capture_end(got, sizeof got);
	CHECK(strlen(got) < 4096);
	CHECK(strstr(got, "... (protocol)\n") != NULL);
}

TEST(logging_leaves_errno_alone)
{
	char got[256];

	log_start("p", LOG_INFO);
	capture_start();
	errno = ENOSPC;
	log_info("x");
	CHECK_EQ("", errno, ENOSPC);
	capture_end(got, sizeof got);
}

TEST(an_event_has_the_level_of_its_kind)
{
	static const struct subject about = { .client = "a", .reason = "no-slot" };
	char got[256];

	log_start("p", LOG_WARNING);
	capture_start();
	log_event(EVENT_CLIENT_ADMITTED, &about, "not seen");
	log_event(EVENT_EXPORT_FAILED, NULL, "no %s", "disk");
	log_set_level(LOG_NOTICE);
	log_event(EVENT_CLIENT_REFUSED, &about, "seen");
	capture_end(got, sizeof got);
	CHECK_STR("", got, "p: error: no disk\np: client a: seen (no-slot)\n");
	log_set_level(LOG_INFO);
}

TEST(what_names_no_other_export_is_about_the_process_own)
{
	char got[256];

	log_start("p", LOG_INFO);
	log_set_export("web1");
	capture_start();
	log_info("x");
	log_event(EVENT_EXPORT_STARTED, NULL, "y");
	log_about(LOG_INFO, &(struct subject) { .export_label = "other" }, "z");
	log_set_export(NULL);
	capture_end(got, sizeof got);
	CHECK_STR("", got, "p[web1]: x\np[web1]: y\np[other]: z\n");
}

TEST(every_event_has_a_name_and_an_id_of_its_own)
{
	CHECK(event_kind(EVENT_NONE) == NULL);
	CHECK(event_kind(N_EVENTS) == NULL);
	for (enum event e = EVENT_NONE + 1; e < N_EVENTS; e++) {
		const struct event_kind *kind = event_kind(e);

		CHECK(kind && kind->name && kind->id && kind->level <= LOG_INFO);
		CHECK_EQ("", strlen(kind->id), 32);
		CHECK_EQ("", strspn(kind->id, "0123456789abcdef"), 32);
		for (enum event other = EVENT_NONE + 1; other < e; other++) {
			CHECK(strcmp(event_kind(other)->name, kind->name) != 0);
			CHECK(strcmp(event_kind(other)->id, kind->id) != 0);
		}
	}
}

/* A pipe that nobody reads. */
static int fill(int fd)
{
	static const char rubbish[4096];
	int n = 0;

	while (write(fd, rubbish, sizeof rubbish) > 0)
		n++;
	return n;
}

static void drain(int fd, int pages)
{
	char page[4096];

	while (pages-- > 0)
		(void) !read(fd, page, sizeof page);
}

static void *log_in_a_thread(void *nothing)
{
	for (int i = 0; i < 1000; i++)
		log_info("nobody reads this");
	return nothing;
}

TEST(who_does_not_read_the_log_holds_up_nobody_and_hears_how_much_was_lost)
{
	char got[4096];
	pthread_t thread;
	int pages;

	log_start("nbd-export", LOG_INFO);
	capture_start();
	pages = fill(STDERR_FILENO);
	for (int i = 0; i < 1000; i++)
		log_info("nobody reads this");
	CHECK_EQ("", pthread_create(&thread, NULL, log_in_a_thread, NULL), 0);
	CHECK_EQ("", pthread_join(thread, NULL), 0);
	drain(pipe_out, pages);
	log_info("here again");
	log_info("as before");
	capture_end(got, sizeof got);
	CHECK_STR("", got,
	          "nbd-export: warning: 2000 messages were lost: the log did not take them\n"
	          "nbd-export: here again\n"
	          "nbd-export: as before\n");
}
