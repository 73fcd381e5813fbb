/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The nbd driver's netlink family against a kernel that is played: what is asked for, as
 * attributes, every answer, and every refusal in words.
 */
#include "check.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <stdlib.h>

#include "base/attr.h"
#include "netlink/nbd-driver.h"

#define FAMILY 29
#define GROUP 7

/* The kernel: it keeps the question, and answers from what the test laid down. */
struct kernel {
	uint8_t question[16 << 10];
	uint8_t answers[8][2048];
	ssize_t lengths[8];             /* negative: -errno of receive() */
	size_t n_answers, n_given;
	int send_fails;                 /* errno */
	unsigned joined;
	bool closed;
	bool old_numbers;               /* answers carry the number of another question */
};

static int fake_send(void *userdata, const struct nlmsghdr *message)
{
	struct kernel *k = userdata;

	CHECK(message->nlmsg_len <= sizeof k->question);
	memcpy(k->question, message, message->nlmsg_len);
	return -k->send_fails;
}

static ssize_t fake_receive(void *userdata, void *ret, size_t size)
{
	struct kernel *k = userdata;
	const struct nlmsghdr *question = (const struct nlmsghdr *) k->question;
	size_t i = k->n_given++;
	struct nlmsghdr *message = ret;
	int left;

	if (i >= k->n_answers)
		return -ENODATA;        /* a real one would wait for ever */
	if (k->lengths[i] < 0)
		return k->lengths[i];
	CHECK((size_t) k->lengths[i] <= size);
	memcpy(ret, k->answers[i], (size_t) k->lengths[i]);
	left = (int) k->lengths[i];
	for (; nlmsg_ok(message, left); message = nlmsg_next(message, &left))
		message->nlmsg_seq = question->nlmsg_seq - k->old_numbers;
	return k->lengths[i];
}

static int fake_join(void *userdata, unsigned group)
{
	((struct kernel *) userdata)->joined = group;
	return group == GROUP ? 0 : -ENOENT;
}

static void fake_close(void *userdata)
{
	((struct kernel *) userdata)->closed = true;
}

static struct kernel_link link_of(struct kernel *k)
{
	return (struct kernel_link) { .send = fake_send, .receive = fake_receive,
	                              .join = fake_join, .close = fake_close, .fd = -1,
	                              .userdata = k };
}

/* Lays down one datagram, by its bytes. */
static void will_answer(struct kernel *k, const void *at, size_t len)
{
	memcpy(k->answers[k->n_answers], at, len);
	k->lengths[k->n_answers++] = (ssize_t) len;
}

static void will_say(struct kernel *k, struct nl_msg *message)
{
	will_answer(k, nlmsg_hdr(message), nlmsg_hdr(message)->nlmsg_len);
	nlmsg_free(message);
}

/* An acknowledgement, with a sentence behind the header of the question unless NULL. */
static void will_judge(struct kernel *k, int code, const char *sentence)
{
	struct nl_msg *message = nlmsg_alloc();
	struct nlmsgerr error = { .error = -code };
	struct nlmsghdr *header = nlmsg_put(message, 0, 0, NLMSG_ERROR, 0,
	                                    sentence ? NLM_F_ACK_TLVS | NLM_F_CAPPED : 0);

	CHECK(header && nlmsg_append(message, &error, sizeof error, NLMSG_ALIGNTO) == 0);
	if (sentence)
		CHECK(nla_put_string(message, NLMSGERR_ATTR_MSG, sentence) == 0);
	will_say(k, message);
}

static struct nl_msg *answer_of(int family, uint8_t command)
{
	struct nl_msg *message = nlmsg_alloc();

	CHECK(genlmsg_put(message, 0, 0, family, 0, 0, command, 1) != NULL);
	return message;
}

static struct nl_msg *family_answer(const char *group)
{
	struct nl_msg *message = answer_of(GENL_ID_CTRL, CTRL_CMD_NEWFAMILY);
	struct nlattr *groups, *one;

	nla_put_string(message, CTRL_ATTR_FAMILY_NAME, "nbd");
	nla_put_u16(message, CTRL_ATTR_FAMILY_ID, FAMILY);
	groups = nla_nest_start(message, CTRL_ATTR_MCAST_GROUPS);
	one = nla_nest_start(message, 1);
	nla_put_string(message, CTRL_ATTR_MCAST_GRP_NAME, group);
	nla_put_u32(message, CTRL_ATTR_MCAST_GRP_ID, GROUP);
	nla_nest_end(message, one);
	nla_nest_end(message, groups);
	return message;
}

/* A driver, with a kernel that has nothing more to say. */
static struct nbd_driver open_driver(struct kernel *k)
{
	struct nbd_driver driver = { 0 };
	struct failure why = { 0 };

	memset(k, 0, sizeof *k);
	will_say(k, family_answer("nbd_mc_group"));
	will_judge(k, 0, NULL);
	CHECK_EQ(why.text, nbd_driver_open(link_of(k), &driver, &why), 0);
	k->n_answers = k->n_given = 0;
	return driver;
}

static const struct nbd_setup setup = {
	.index = 3, .size = UINT64_C(5) << 40, .block_size = 4096, .timeout = 30,
	.dead_conn_timeout = 600, .flags = 0x16d, .sockets = (const int[]) { 17, 18 },
	.n_sockets = 2, .backend = "nbd-export x",
};

static void parse_question(struct kernel *k, uint8_t command, struct nlattr *found[NBD_ATTR_MAX + 1])
{
	struct nlmsghdr *question = (struct nlmsghdr *) k->question;

	CHECK_EQ("family", question->nlmsg_type, FAMILY);
	CHECK_EQ("flags", question->nlmsg_flags & (NLM_F_REQUEST | NLM_F_ACK),
	         NLM_F_REQUEST | NLM_F_ACK);
	CHECK_EQ("command", ((struct genlmsghdr *) nlmsg_data(question))->cmd, command);
	CHECK_EQ("attributes", genlmsg_parse(question, 0, found, NBD_ATTR_MAX, NULL), 0);
}

/* The descriptors in NBD_ATTR_SOCKETS. */
static size_t read_sockets(struct nlattr *all, int ret[8])
{
	struct nlattr *item, *found[NBD_SOCK_MAX + 1];
	size_t n = 0;
	int left;

	nla_for_each_nested(item, all, left) {
		CHECK_EQ("item", nla_type(item), NBD_SOCK_ITEM);
		CHECK_EQ("socket", nla_parse_nested(found, NBD_SOCK_MAX, item, NULL), 0);
		ret[n++] = (int) nla_get_u32(found[NBD_SOCK_FD]);
	}
	return n;
}

TEST(the_family_and_its_group_are_found_by_name)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct nlattr *found[CTRL_ATTR_MAX + 1];

	CHECK_EQ("", driver.family, FAMILY);
	CHECK_EQ("", driver.dead_link_group, GROUP);
	CHECK_EQ("", genlmsg_parse((struct nlmsghdr *) k.question, 0, found, CTRL_ATTR_MAX, NULL), 0);
	CHECK_STR("", nla_get_string(found[CTRL_ATTR_FAMILY_NAME]), "nbd");
	nbd_driver_close(&driver);
	CHECK(k.closed);
}

TEST(without_the_driver_it_is_said_how_to_load_it)
{
	struct kernel k = { 0 };
	struct nbd_driver driver = { 0 };
	struct failure why = { 0 };

	will_judge(&k, ENOENT, NULL);
	CHECK_EQ("", nbd_driver_open(link_of(&k), &driver, &why), -ENOENT);
	CHECK_STR("", why.text, "the kernel's nbd driver is not loaded: `modprobe nbd`, or "
	                        "--load-module");
	CHECK(k.closed && driver.family == 0);
}

TEST(a_family_without_the_group_is_not_ours)
{
	struct kernel k = { 0 };
	struct nbd_driver driver = { 0 };
	struct failure why = { 0 };

	will_say(&k, family_answer("another"));
	CHECK_EQ("", nbd_driver_open(link_of(&k), &driver, &why), -EPROTO);
	CHECK(strstr(why.text, "nbd_mc_group") && k.closed);
}

TEST(connect_says_all_and_gets_the_device)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct nl_msg *message = answer_of(FAMILY, NBD_CMD_CONNECT);
	struct nlattr *found[NBD_ATTR_MAX + 1];
	struct failure why = { 0 };
	int index = -7, sockets[8];

	nla_put_u32(message, NBD_ATTR_INDEX, 3);
	will_say(&k, message);
	will_judge(&k, 0, NULL);
	CHECK_EQ(why.text, nbd_driver_connect(&driver, &setup, &index, &why), 0);
	CHECK_EQ("", index, 3);

	parse_question(&k, NBD_CMD_CONNECT, found);
	CHECK_EQ("", nla_get_u32(found[NBD_ATTR_INDEX]), 3);
	CHECK_EQ("", nla_get_u64(found[NBD_ATTR_SIZE_BYTES]), setup.size);
	CHECK_EQ("", nla_get_u64(found[NBD_ATTR_BLOCK_SIZE_BYTES]), 4096);
	CHECK_EQ("", nla_get_u64(found[NBD_ATTR_TIMEOUT]), 30);
	CHECK_EQ("", nla_get_u64(found[NBD_ATTR_DEAD_CONN_TIMEOUT]), 600);
	CHECK_EQ("", nla_get_u64(found[NBD_ATTR_SERVER_FLAGS]), 0x16d);
	CHECK_STR("", nla_get_string(found[NBD_ATTR_BACKEND_IDENTIFIER]), "nbd-export x");
	CHECK_EQ("", read_sockets(found[NBD_ATTR_SOCKETS], sockets), 2);
	CHECK(sockets[0] == 17 && sockets[1] == 18);
}

TEST(what_is_not_set_is_not_sent)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	const struct nbd_setup bare = { .index = NBD_INDEX_ANY, .size = 4096,
	                                .sockets = setup.sockets, .n_sockets = 1 };
	struct nlattr *found[NBD_ATTR_MAX + 1];
	struct failure why = { 0 };
	int index = -7;

	will_judge(&k, 0, NULL);
	CHECK_EQ("no device in the answer", nbd_driver_connect(&driver, &bare, &index, &why), -EPROTO);
	CHECK_EQ("untouched", index, -7);
	parse_question(&k, NBD_CMD_CONNECT, found);
	CHECK(!found[NBD_ATTR_INDEX] && !found[NBD_ATTR_BLOCK_SIZE_BYTES]);
	CHECK(!found[NBD_ATTR_TIMEOUT] && !found[NBD_ATTR_DEAD_CONN_TIMEOUT]);
	CHECK(!found[NBD_ATTR_BACKEND_IDENTIFIER]);
}

/* Every errno that the driver is known to give, and one that it is not. */
static const struct {
	int code;
	const char *sentence;           /* the kernel's own */
	const char *text;
} refusals[] = {
	{ EPERM, NULL, "cannot connect /dev/nbd3: only root may (CAP_SYS_ADMIN)" },
	{ EBUSY, NULL, "cannot connect /dev/nbd3: it is connected already: choose another, or "
	               "detach it" },
	{ EINVAL, NULL, "cannot connect /dev/nbd3: the kernel does not take it; its log (dmesg) has "
	                "the reason" },
	{ EINVAL, "Attribute failed policy validation",
	  "cannot connect /dev/nbd3: the kernel does not take it; its log (dmesg) has the reason "
	  "(the kernel says: Attribute failed policy validation)" },
	{ ENOMEM, NULL, "cannot connect /dev/nbd3: Cannot allocate memory" },
	{ ENOMEM, "no\nroom", "cannot connect /dev/nbd3: no\xef\xbf\xbdroom: Cannot allocate memory" },
};

TEST(refusals_of_the_kernel_are_put_into_words)
{
	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		struct kernel k;
		struct nbd_driver driver = open_driver(&k);
		struct failure why = { 0 };
		int index = -7;

		will_judge(&k, refusals[i].code, refusals[i].sentence);
		CHECK_EQ(refusals[i].text, nbd_driver_connect(&driver, &setup, &index, &why),
		         -refusals[i].code);
		CHECK_STR("", why.text, refusals[i].text);
		CHECK_EQ("untouched", index, -7);
	}
}

TEST(the_sentence_is_found_behind_a_question_that_is_repeated)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct nl_msg *message = nlmsg_alloc();
	uint8_t repeated[12] = { 0 };
	struct nlmsgerr error = { .error = -EINVAL, .msg = { .nlmsg_len = NLMSG_HDRLEN + 12 } };
	struct failure why = { 0 };

	CHECK(nlmsg_put(message, 0, 0, NLMSG_ERROR, 0, NLM_F_ACK_TLVS) != NULL);
	CHECK_EQ("", nlmsg_append(message, &error, sizeof error, 0), 0);
	CHECK_EQ("", nlmsg_append(message, repeated, sizeof repeated, 0), 0);
	nla_put_string(message, NLMSGERR_ATTR_MSG, "found");
	will_say(&k, message);
	CHECK_EQ("", nbd_driver_disconnect(&driver, 1, &why), -EINVAL);
	CHECK(strstr(why.text, "(the kernel says: found)") != NULL);
}

/* An acknowledgement cut anywhere: refused, or taken without its sentence, and never read past. */
TEST(answers_that_are_cut_are_refused)
{
	struct kernel whole = { 0 };
	size_t len;

	will_judge(&whole, EINVAL, "sentence");
	len = (size_t) whole.lengths[0] - 3;    /* what pads it at the end is nobody's */
	for (size_t cut = 0; cut < len; cut++) {
		struct kernel k;
		struct nbd_driver driver = open_driver(&k);
		struct nlmsghdr *header = (struct nlmsghdr *) whole.answers[0];
		struct failure why = { 0 };

		header->nlmsg_len = (uint32_t) cut;
		will_answer(&k, header, cut);
		CHECK(nbd_driver_disconnect(&driver, 1, &why) < 0);
		CHECK(strstr(why.text, "sentence") == NULL);
		if (cut < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
			CHECK(why.code == EPROTO || why.code == ENODATA);
	}
}

TEST(reconfigure_gives_new_sockets_and_the_same_backend)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct nlattr *found[NBD_ATTR_MAX + 1];
	const int fresh = 23;
	struct failure why = { 0 };
	int sockets[8];

	will_judge(&k, 0, NULL);
	CHECK_EQ(why.text, nbd_driver_reconfigure(&driver, 5, 0, &fresh, 1, "who", &why), 0);
	parse_question(&k, NBD_CMD_RECONFIGURE, found);
	CHECK_EQ("", nla_get_u32(found[NBD_ATTR_INDEX]), 5);
	CHECK_STR("", nla_get_string(found[NBD_ATTR_BACKEND_IDENTIFIER]), "who");
	CHECK_EQ("", read_sockets(found[NBD_ATTR_SOCKETS], sockets), 1);
	CHECK_EQ("", sockets[0], 23);
	CHECK(!found[NBD_ATTR_SIZE_BYTES]);

	k.n_answers = k.n_given = 0;
	why = (struct failure) { 0 };
	will_judge(&k, EINVAL, NULL);
	CHECK_EQ("", nbd_driver_reconfigure(&driver, 5, 8192, &fresh, 1, NULL, &why), -EINVAL);
	CHECK(strstr(why.text, "cannot reconnect /dev/nbd5: it is not connected") != NULL);
	parse_question(&k, NBD_CMD_RECONFIGURE, found);
	CHECK(!found[NBD_ATTR_BACKEND_IDENTIFIER]);
	CHECK_EQ("", nla_get_u64(found[NBD_ATTR_SIZE_BYTES]), 8192);

	k.n_answers = k.n_given = 0;
	will_judge(&k, 0, NULL);
	CHECK_EQ(why.text, nbd_driver_reconfigure(&driver, 5, 4096, NULL, 0, "who", &why), 0);
	parse_question(&k, NBD_CMD_RECONFIGURE, found);
	CHECK(!found[NBD_ATTR_SOCKETS]);
}

TEST(disconnect_names_the_device)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct nlattr *found[NBD_ATTR_MAX + 1];
	struct failure why = { 0 };

	will_judge(&k, 0, NULL);
	CHECK_EQ(why.text, nbd_driver_disconnect(&driver, 9, &why), 0);
	parse_question(&k, NBD_CMD_DISCONNECT, found);
	CHECK_EQ("", nla_get_u32(found[NBD_ATTR_INDEX]), 9);

	k.n_answers = k.n_given = 0;
	why = (struct failure) { 0 };
	will_judge(&k, EINVAL, NULL);
	CHECK_EQ("", nbd_driver_disconnect(&driver, 9, &why), -EINVAL);
	CHECK_STR("", why.text, "cannot disconnect /dev/nbd9: there is no such device");
}

static struct nl_msg *status_answer(uint32_t n, bool whole)
{
	struct nl_msg *message = answer_of(FAMILY, NBD_CMD_STATUS);
	struct nlattr *list = nla_nest_start(message, NBD_ATTR_DEVICE_LIST);

	for (uint32_t i = 0; i < n; i++) {
		struct nlattr *item = nla_nest_start(message, NBD_DEVICE_ITEM);

		nla_put_u32(message, NBD_DEVICE_INDEX, i);
		if (whole)
			nla_put_u8(message, NBD_DEVICE_CONNECTED, i % 2);
		nla_nest_end(message, item);
	}
	nla_nest_end(message, list);
	return message;
}

TEST(status_lists_the_devices)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct nlattr *found[NBD_ATTR_MAX + 1];
	struct nbd_device *list = NULL;
	struct failure why = { 0 };
	size_t n = 99;

	will_say(&k, status_answer(16, true));
	will_judge(&k, 0, NULL);
	CHECK_EQ(why.text, nbd_driver_status(&driver, NBD_INDEX_ANY, &list, &n, &why), 0);
	CHECK_EQ("", n, 16);
	for (size_t i = 0; i < n && i < 16; i++)
		CHECK(list[i].index == (int) i && list[i].connected == (i % 2 == 1));
	free(list);
	parse_question(&k, NBD_CMD_STATUS, found);
	CHECK(!found[NBD_ATTR_INDEX]);

	k.n_answers = k.n_given = 0;
	why = (struct failure) { 0 };
	will_judge(&k, 0, NULL);
	CHECK_EQ(why.text, nbd_driver_status(&driver, 4, &list, &n, &why), 0);
	CHECK_EQ("none", n, 0);
	parse_question(&k, NBD_CMD_STATUS, found);
	CHECK_EQ("", nla_get_u32(found[NBD_ATTR_INDEX]), 4);
}

TEST(a_broken_answer_to_status_is_refused)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct nbd_device *list = NULL;
	struct failure why = { 0 };
	size_t n = 99;

	will_say(&k, status_answer(2, false));
	CHECK_EQ("", nbd_driver_status(&driver, NBD_INDEX_ANY, &list, &n, &why), -EPROTO);
	CHECK(list == NULL && n == 99);
	k.n_answers = k.n_given = 0;
	why = (struct failure) { 0 };
	will_say(&k, answer_of(FAMILY, NBD_CMD_STATUS));
	CHECK_EQ("no list", nbd_driver_status(&driver, 0, &list, &n, &why), -EPROTO);
}

TEST(answers_to_another_question_are_passed_over)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct failure why = { 0 };

	k.old_numbers = true;
	will_judge(&k, 0, NULL);
	CHECK_EQ("", nbd_driver_disconnect(&driver, 1, &why), -ENODATA);
}

TEST(a_kernel_that_cannot_be_asked_is_a_failure)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct failure why = { 0 };

	k.send_fails = ECONNREFUSED;
	CHECK_EQ("", nbd_driver_disconnect(&driver, 1, &why), -ECONNREFUSED);
	CHECK(strstr(why.text, "cannot ask the kernel") != NULL);
}

static struct nl_msg *dead_link(int family, uint8_t command, uint32_t index)
{
	struct nl_msg *message = answer_of(family, command);

	nla_put_u32(message, NBD_ATTR_INDEX, index);
	return message;
}

TEST(dead_links_are_heard_of_and_nothing_else)
{
	struct kernel k;
	struct nbd_driver driver = open_driver(&k);
	struct failure why = { 0 };
	int index = -7;

	CHECK_EQ(why.text, nbd_driver_watch(&driver, &why), 0);
	CHECK_EQ("", k.joined, GROUP);
	will_say(&k, dead_link(FAMILY + 1, NBD_CMD_LINK_DEAD, 1));
	will_say(&k, dead_link(FAMILY, NBD_CMD_CONNECT, 2));
	will_say(&k, answer_of(FAMILY, NBD_CMD_LINK_DEAD));
	will_say(&k, dead_link(FAMILY, NBD_CMD_LINK_DEAD, 4));
	CHECK_EQ(why.text, nbd_driver_next_dead_link(&driver, &index, &why), 1);
	CHECK_EQ("", index, 4);

	k.lengths[k.n_answers++] = -ENOBUFS;
	CHECK_EQ(why.text, nbd_driver_next_dead_link(&driver, &index, &why), 1);
	CHECK_EQ("some were lost", index, NBD_INDEX_ANY);
	k.lengths[k.n_answers++] = -EAGAIN;
	CHECK_EQ("nothing more", nbd_driver_next_dead_link(&driver, &index, &why), 0);
	CHECK_EQ("", nbd_driver_next_dead_link(&driver, &index, &why), -ENODATA);

	why = (struct failure) { 0 };
	driver.dead_link_group = GROUP + 1;
	CHECK_EQ("", nbd_driver_watch(&driver, &why), -ENOENT);
}
