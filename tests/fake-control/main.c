/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stands in for what nbdctl talks to over D-Bus, for states that are hard to bring about:
 *
 *   fake-control PATH [RULE...]
 *
 * Answers on a unix socket at PATH, peer to peer, until SIGTERM, whatever the object.  Each
 * call is a line on stdout, "Method ARGUMENT". It shares no code with daemon/.  Rules:
 *
 *   KEY=T:VALUE         a property, T one of s t u b
 *   client:KEY=T:VALUE  of the client begun last; "client" begins another
 *   error:METHOD=TEXT   METHOD fails so
 *   busy:METHOD=TEXT    METHOD fails with EBUSY
 *   answer:METHOD=TEXT  METHOD answers with this string
 *   silent:METHOD       METHOD is never answered
 *   job:UNIT=RESULT     how systemd's job for this unit ends ("done"); "never"
 *   state:UNIT=STATE    ActiveState of this unit ("inactive"), which is in the list of units
 *   status:UNIT=TEXT    StatusText of this unit, of which there is a state
 *   restarts:UNIT=N     NRestarts of it
 *   reverted:UNIT=PATH  what is removed when it is reverted
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#define MANAGER "org.freedesktop.systemd1.Manager"
#define MANAGER_PATH "/org/freedesktop/systemd1"

static char **rules;
static int n_rules;
static unsigned n_jobs;

static void check(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "fake-control: %s: %s\n", what, strerror(-r));
	exit(1);
}

/* The value of the rule "KIND:WORD=VALUE", or NULL. */
static const char *find_rule(const char *kind, const char *word)
{
	for (int i = 0; i < n_rules; i++) {
		size_t len = strlen(kind);

		if (strncmp(rules[i], kind, len) != 0 || rules[i][len] != ':' ||
		    strncmp(rules[i] + len + 1, word, strlen(word)) != 0)
			continue;
		len += 1 + strlen(word);
		if (rules[i][len] == '=')
			return rules[i] + len + 1;
		if (rules[i][len] == '\0')
			return "";
	}
	return NULL;
}

/* Appends the entry that "KEY=T:VALUE" describes to an open a{sv}. */
static void append_entry(sd_bus_message *m, const char *rule)
{
	const char *equals = strchr(rule, '=');
	char *key = strndup(rule, (size_t) (equals - rule));
	const char *value = equals + 3;

	switch (equals[1]) {
	case 't':
		check(sd_bus_message_append(m, "{sv}", key, "t", strtoull(value, NULL, 10)), key);
		break;
	case 'u':
		check(sd_bus_message_append(m, "{sv}", key, "u",
		                            (uint32_t) strtoul(value, NULL, 10)), key);
		break;
	case 'b':
		check(sd_bus_message_append(m, "{sv}", key, "b", *value == '1'), key);
		break;
	case 'l':
		check(sd_bus_message_append(m, "{sv}", key, "as", 2, value, "other"), key);
		break;
	default:
		check(sd_bus_message_append(m, "{sv}", key, "s", value), key);
	}
	free(key);
}

static bool is_property(const char *rule)
{
	const char *equals = strchr(rule, '=');
	const char *colon = strchr(rule, ':');

	return equals && (!colon || equals < colon);
}

static void append_properties(sd_bus_message *reply)
{
	check(sd_bus_message_open_container(reply, 'a', "{sv}"), "properties");
	for (int i = 0; i < n_rules; i++)
		if (is_property(rules[i]))
			append_entry(reply, rules[i]);
	check(sd_bus_message_close_container(reply), "properties");
}

static void append_clients(sd_bus_message *reply)
{
	bool open = false;

	check(sd_bus_message_open_container(reply, 'a', "a{sv}"), "clients");
	for (int i = 0; i <= n_rules; i++) {
		bool begins = i == n_rules || strcmp(rules[i], "client") == 0;

		if (begins && open)
			check(sd_bus_message_close_container(reply), "client");
		if (begins && i < n_rules)
			check(sd_bus_message_open_container(reply, 'a', "{sv}"), "client");
		open = open || begins;
		if (i < n_rules && strncmp(rules[i], "client:", 7) == 0)
			append_entry(reply, rules[i] + 7);
	}
	check(sd_bus_message_close_container(reply), "clients");
}

/* The job's end may come before the answer that names it, or after: by turns. */
static void answer_job(sd_bus *bus, sd_bus_message *m, const char *unit)
{
	const char *result = find_rule("job", unit);
	bool ends = !result || strcmp(result, "never") != 0;
	char path[64];

	snprintf(path, sizeof path, "/org/freedesktop/systemd1/job/%u", ++n_jobs);
	if (ends && n_jobs % 2)
		check(sd_bus_emit_signal(bus, MANAGER_PATH, MANAGER, "JobRemoved", "uoss", n_jobs,
		                         path, unit, result ? result : "done"), "signal");
	check(sd_bus_reply_method_return(m, "o", path), "job");
	if (ends && n_jobs % 2 == 0)
		check(sd_bus_emit_signal(bus, MANAGER_PATH, MANAGER, "JobRemoved", "uoss", n_jobs,
		                         path, unit, result ? result : "done"), "signal");
}

/* The unit's object is named by its place among the rules. */
static void answer_load(sd_bus_message *m, const char *unit)
{
	char path[64];
	int at = 0;

	while (at < n_rules && (strncmp(rules[at], "state:", 6) != 0 ||
	                        strncmp(rules[at] + 6, unit, strlen(unit)) != 0))
		at++;
	snprintf(path, sizeof path, "/unit/_%d", at);
	check(sd_bus_reply_method_return(m, "o", path), "unit");
}

static void answer_state(sd_bus_message *m)
{
	const char *digits = strrchr(sd_bus_message_get_path(m), '_');
	int at = digits ? atoi(digits + 1) : n_rules;
	const char *answer = "inactive";
	const char *interface, *property;
	char *unit;

	check(sd_bus_message_rewind(m, true), "property");
	check(sd_bus_message_read(m, "ss", &interface, &property), "property");
	if (at < n_rules)
		answer = strchr(rules[at], '=') + 1;
	unit = at < n_rules ? strndup(rules[at] + 6, strcspn(rules[at] + 6, "=")) : strdup("");
	if (strcmp(property, "StatusText") == 0)
		answer = find_rule("status", unit);
	if (strcmp(property, "NRestarts") == 0) {
		answer = find_rule("restarts", unit);
		check(sd_bus_reply_method_return(m, "v", "u", answer ? atoi(answer) : 0), "number");
	} else {
		check(sd_bus_reply_method_return(m, "v", "s", answer ? answer : ""), "state");
	}
	free(unit);
}

static void append_units(sd_bus_message *reply)
{
	check(sd_bus_message_open_container(reply, 'a', "(ssssssouso)"), "units");
	for (int i = 0; i < n_rules; i++) {
		const char *equals = strchr(rules[i], '=');
		char *unit;

		if (strncmp(rules[i], "state:", 6) != 0)
			continue;
		unit = strndup(rules[i] + 6, (size_t) (equals - rules[i] - 6));
		check(sd_bus_message_append(reply, "(ssssssouso)", unit, "", "loaded", equals + 1,
		                            "", "", "/unit", 0, "", "/"), unit);
		free(unit);
	}
	check(sd_bus_message_close_container(reply), "units");
}

static void answer_reverted(sd_bus_message *m)
{
	const char *unit, *path;

	check(sd_bus_message_enter_container(m, 'a', "s"), "units");
	check(sd_bus_message_read_basic(m, 's', &unit), "unit");
	path = find_rule("reverted", unit);
	if (path)
		check(sd_bus_reply_method_return(m, "a(sss)", 1, "unlink", path, ""), "reverted");
	else
		check(sd_bus_reply_method_return(m, "a(sss)", 0), "reverted");
}

static void answer_with(sd_bus_message *m, void (*append)(sd_bus_message *reply))
{
	sd_bus_message *reply;

	check(sd_bus_message_new_method_return(m, &reply), "reply");
	append(reply);
	check(sd_bus_message_send(reply), "reply");
	sd_bus_message_unref(reply);
}

static void log_call(const char *member, const char *text, uint64_t number)
{
	if (number)
		printf("%s %llu\n", member, (unsigned long long) number);
	else
		printf("%s%s%s\n", member, *text ? " " : "", text);
	fflush(stdout);
}

static int answer(sd_bus_message *m, const char *member, const char *text)
{
	const char *with;

	if (find_rule("silent", member))
		return 1;
	if ((with = find_rule("error", member)))
		return sd_bus_reply_method_errorf(m, "org.nbd_export.Error.Failed", "%s", with);
	if ((with = find_rule("busy", member)))
		return sd_bus_reply_method_errorf(m, "System.Error.EBUSY", "%s", with);
	if ((with = find_rule("answer", member)))
		return sd_bus_reply_method_return(m, "s", with);
	if (strcmp(member, "GetAll") == 0)
		answer_with(m, append_properties);
	else if (strcmp(member, "ListClients") == 0)
		answer_with(m, append_clients);
	else if (strcmp(member, "ListUnitsByPatterns") == 0)
		answer_with(m, append_units);
	else if (strcmp(member, "RevertUnitFiles") == 0)
		answer_reverted(m);
	else if (strcmp(member, "Get") == 0)
		answer_state(m);
	else if (strcmp(member, "LoadUnit") == 0)
		answer_load(m, text);
	else if (strcmp(member, "StartUnit") == 0 || strcmp(member, "StopUnit") == 0)
		answer_job(sd_bus_message_get_bus(m), m, text);
	else
		return sd_bus_reply_method_return(m, "");
	return 1;
}

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	const char *member = sd_bus_message_get_member(m);
	const char *signature;
	const char *text = "";
	uint64_t number = 0;

	(void) userdata;
	(void) error;
	if (!sd_bus_message_is_method_call(m, NULL, NULL))
		return 0;
	signature = sd_bus_message_get_signature(m, true);
	if (signature[0] == 's')
		check(sd_bus_message_read_basic(m, 's', &text), "text");
	else if (signature[0] == 't')
		check(sd_bus_message_read_basic(m, 't', &number), "number");
	if (strcmp(member, "GetAll") != 0 && strcmp(member, "Get") != 0)
		log_call(member, text, number);
	return answer(m, member, text);
}

static int on_client(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	sd_id128_t id;
	sd_bus *bus;

	(void) source;
	(void) events;
	check(client < 0 ? -errno : 0, "accept");
	check(sd_id128_randomize(&id), "id");
	check(sd_bus_new(&bus), "bus");
	check(sd_bus_set_fd(bus, client, client), "bus");
	check(sd_bus_set_server(bus, 1, id), "bus");
	check(sd_bus_start(bus), "bus");
	check(sd_bus_add_filter(bus, NULL, on_message, NULL), "bus");
	check(sd_bus_attach_event(bus, userdata, 0), "bus");    /* lives until we end */
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sd_event *event;

	if (argc < 2 || strlen(argv[1]) >= sizeof address.sun_path) {
		fprintf(stderr, "usage: fake-control PATH [RULE...]\n");
		return 2;
	}
	rules = argv + 2;
	n_rules = argc - 2;
	strcpy(address.sun_path, argv[1]);
	check(fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof address) < 0 ||
	      listen(fd, 16) < 0 ? -errno : 0, argv[1]);
	check(sd_event_new(&event), "event loop");
	check(sd_event_add_io(event, NULL, fd, EPOLLIN, on_client, event), "event loop");
	printf("ready\n");
	fflush(stdout);
	check(sd_event_loop(event), "event loop");
	return 0;
}
