/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdpass.h"

struct channel {
	int ours;
	int theirs;
};

static struct channel channel_start(int type)
{
	int pair[2] = { -1, -1 };

	CHECK_EQ("socketpair", socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
	         0);
	return (struct channel) { pair[0], pair[1] };
}

static void channel_end(struct channel *c)
{
	close_fd(&c->ours);
	close_fd(&c->theirs);
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		(void) closedir(dir);
	return n;
}

/* What a hostile peer may send: any number of descriptors. */
static void send_fds(int channel, const char *record, size_t len, unsigned n)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(16 * sizeof(int))];
	} control = { 0 };
	struct iovec body = { .iov_base = (void *) record, .iov_len = len };
	struct msghdr msg = {
		.msg_iov = &body, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};
	struct cmsghdr *rights = CMSG_FIRSTHDR(&msg);

	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(n * sizeof(int));
	for (unsigned i = 0; i < n; i++)
		memcpy(CMSG_DATA(rights) + i * sizeof channel, &channel, sizeof channel);
	CHECK_EQ("sendmsg", sendmsg(channel, &msg, 0), len);
}

TEST(a_record_arrives_without_a_descriptor)
{
	struct channel c = channel_start(SOCK_SEQPACKET);
	char got[16];
	unsigned n_fds = 9;
	int fd = 9;

	CHECK_EQ("", send_record(c.ours, "hello", 5, -1), 0);
	CHECK_EQ("", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), 5);
	CHECK(memcmp(got, "hello", 5) == 0);
	CHECK_EQ("", fd, -1);
	CHECK_EQ("", n_fds, 0);
	channel_end(&c);
}

TEST(a_descriptor_arrives_close_on_exec_and_works)
{
	struct channel c = channel_start(SOCK_SEQPACKET);
	int pipe_fds[2] = { -1, -1 };
	char got[16];
	unsigned n_fds;
	int fd = -1;

	CHECK_EQ("", pipe(pipe_fds), 0);
	CHECK_EQ("", send_record(c.ours, "fd", 2, pipe_fds[1]), 0);
	CHECK(fcntl(pipe_fds[1], F_GETFD) >= 0);        /* the sender keeps its own */
	close_fd(&pipe_fds[1]);

	CHECK_EQ("", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), 2);
	CHECK_EQ("", n_fds, 1);
	CHECK_EQ("", fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ("", write(fd, "x", 1), 1);
	CHECK_EQ("", read(pipe_fds[0], got, 1), 1);
	close_fd(&fd);
	close_fd(&pipe_fds[0]);
	channel_end(&c);
}

TEST(surplus_descriptors_are_counted_and_closed)
{
	struct channel c = channel_start(SOCK_SEQPACKET);
	unsigned before = count_fds();
	char got[16];
	unsigned n_fds;
	int fd = -1;

	send_fds(c.ours, "two", 3, 2);
	CHECK_EQ("", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), 3);
	CHECK_EQ("", n_fds, 2);
	CHECK_EQ("one was kept", count_fds(), before + 1);
	close_fd(&fd);

	fd = -1;
	send_fds(c.ours, "many", 4, 16);
	CHECK_EQ("", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), -EMSGSIZE);
	CHECK_EQ("untouched", fd, -1);
	CHECK_EQ("none was kept", count_fds(), before);
	channel_end(&c);
}

TEST(a_record_that_is_too_long_is_refused_with_its_descriptor)
{
	struct channel c = channel_start(SOCK_SEQPACKET);
	unsigned before = count_fds();
	char got[4];
	unsigned n_fds;
	int fd = -1;

	CHECK_EQ("", send_record(c.ours, "12345", 5, c.ours), 0);
	CHECK_EQ("", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), -EMSGSIZE);
	CHECK_EQ("untouched", fd, -1);
	CHECK_EQ("", count_fds(), before);

	CHECK_EQ("", send_record(c.ours, "1234", 4, -1), 0);    /* the channel lives on */
	CHECK_EQ("", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), 4);
	channel_end(&c);
}

TEST(an_empty_record_leaks_no_descriptor)
{
	struct channel c = channel_start(SOCK_SEQPACKET);
	unsigned before = count_fds();
	char got[4];
	unsigned n_fds;
	int fd = 9;

	send_fds(c.ours, "", 0, 1);
	CHECK_EQ("", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), 0);
	CHECK_EQ("", fd, -1);
	CHECK_EQ("", count_fds(), before);
	channel_end(&c);
}

TEST(the_end_of_the_channel_is_told)
{
	struct channel c = channel_start(SOCK_SEQPACKET);
	char got[4];
	unsigned n_fds;
	int fd = -1;

	CHECK_EQ("none yet", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), -EAGAIN);
	close_fd(&c.ours);
	CHECK_EQ("end", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), 0);
	CHECK_EQ("no signal", send_record(c.theirs, "x", 1, -1), -EPIPE);
	channel_end(&c);
}

TEST(a_full_channel_says_so)
{
	struct channel c = channel_start(SOCK_SEQPACKET);
	static const char record[4096];
	int r = 0;

	for (unsigned i = 0; r == 0 && i < 100000; i++)
		r = send_record(c.ours, record, sizeof record, -1);
	CHECK_EQ("", r, -EAGAIN);
	channel_end(&c);
}

TEST(datagrams_carry_descriptors_too)
{
	struct channel c = channel_start(SOCK_DGRAM);
	char got[4];
	unsigned n_fds;
	int fd = -1;

	CHECK_EQ("", send_record(c.ours, "x", 1, c.ours), 0);
	CHECK_EQ("", receive_record(c.theirs, got, sizeof got, &fd, &n_fds), 1);
	CHECK_EQ("", n_fds, 1);
	CHECK(fd >= 0);
	close_fd(&fd);
	channel_end(&c);
}
