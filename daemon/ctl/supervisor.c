/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/supervisor.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/attr.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/service.h"
#include "ctl/notify.h"
#include "ctl/pending.h"

#define SENTENCE_SIZE 256u

static struct served *served_of(struct child *c)
{
	return container_of(c, struct served, child);
}

static size_t count_exports(const struct supervisor *s, enum child_state state)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_exports; i++)
		n += s->exports[i].child.state == state;
	return n;
}

/* By what clients reach it, as the negotiator has it. */
static enum tls_policy policy_of(const struct supervisor *s, const struct export_settings *e)
{
	enum tls_policy all = serve_options_tls(s->options);

	return all == TLS_POLICY_ALLOW && e->tls ? e->tls : all;
}

/* Says that we serve, to people on stdout and to who started us. */
static void announce(struct supervisor *s)
{
	size_t n = 0;

	s->phase = PHASE_SERVING;
	for (size_t i = 0; i < s->n_exports; i++) {
		if (s->exports[i].channel < 0)
			continue;
		client_sockets_print(&s->sockets, s->exports[i].settings->name,
		                     policy_of(s, s->exports[i].settings), stdout);
		n++;
	}
	if (ferror(stdout))
		log_warning("cannot print the addresses to standard output, ignoring");
	notify("READY=1\nSTATUS=serving %zu export%s", n, n == 1 ? "" : "s");
}

static int open_sockets(struct supervisor *s, struct failure *why)
{
	const struct serve_options *o = s->options;
	int r = 0;

	for (size_t i = 0; i < o->n_listen && r == 0; i++)
		r = client_sockets_add_tcp(&s->sockets, o->listen[i], why);
	for (size_t i = 0; i < o->n_unix && r == 0; i++)
		r = client_sockets_add_unix(&s->sockets, o->unix_paths[i], why);
	if (o->n_listen + o->n_unix == 0)
		r = client_sockets_add_unix(&s->sockets, s->runtime->socket, why);
	return r;
}

/* "client:client", one name for each socket. */
static char *make_socket_names(size_t n)
{
	static const char name[] = "client:";
	char *names = malloc(n * strlen(name) + 1);

	if (!names)
		return NULL;
	for (size_t i = 0; i < n; i++)
		memcpy(names + i * strlen(name), name, strlen(name));
	names[n ? n * strlen(name) - 1 : 0] = '\0';
	return names;
}

static int start_negotiator(struct supervisor *s, struct failure *why)
{
	int r = open_sockets(s, why);

	if (r < 0)
		return r;
	s->socket_names = make_socket_names(s->sockets.n);
	if (!s->socket_names)
		return fail(why, ENOMEM, "cannot name the sockets");
	s->negotiator.plan.fds = s->sockets.fds;
	s->negotiator.plan.n_fds = s->sockets.n;
	s->negotiator.plan.fd_names = s->socket_names;
	return child_start(&s->negotiator, s->event, why);
}

/* With --config the rest is served; this one's file is taken from where children read. */
static void drop_failed_exports(struct supervisor *s)
{
	for (size_t i = 0; i < s->n_exports; i++) {
		struct served *e = &s->exports[i];

		if (e->child.state != CHILD_DOWN)
			continue;
		log_error("%s.conf is skipped: its export could not start", e->settings->label);
		runtime_drop(s->runtime, e->settings->label);
		close_fd(&e->channel);
	}
}

static bool tls_has_failed(const struct supervisor *s)
{
	return s->options->tls && s->tls.state != CHILD_READY;
}

void supervisor_exports_step(struct supervisor *s)
{
	struct failure why = { 0 };
	size_t n_ready = count_exports(s, CHILD_READY);

	if (count_exports(s, CHILD_STARTING) > 0 || s->tls.state == CHILD_STARTING)
		return;
	if (tls_has_failed(s)) {
		log_error("nothing is served, because nbd-tls could not start");
		stopping_begin(s, 1);
		return;
	}
	if (s->options->config)
		drop_failed_exports(s);
	if (n_ready == 0 || (!s->options->config && n_ready < s->n_exports)) {
		log_error("nothing is served, because %zu of %zu export%s could not start",
		          s->n_exports - n_ready, s->n_exports, s->n_exports == 1 ? "" : "s");
		stopping_begin(s, 1);
		return;
	}
	s->phase = PHASE_NEGOTIATOR;
	if (start_negotiator(s, &why) < 0) {
		log_error("%s", why.text);
		stopping_begin(s, 1);
	}
}

static void on_export_ready(struct child *c)
{
	struct supervisor *s = c->userdata;

	if (s->phase == PHASE_EXPORTS)
		supervisor_exports_step(s);
}

/* IdleTimeout= has come: the next client starts it again. */
static bool is_idle_end(struct child *c, bool was_ready, const siginfo_t *how)
{
	return was_ready && how->si_code == CLD_EXITED && how->si_status == 0 &&
	       served_of(c)->settings->idle_timeout > 0;
}

static void on_export_ended(struct child *c, bool was_ready, const siginfo_t *how)
{
	const struct subject about = { .export_label = served_of(c)->settings->label };
	struct supervisor *s = c->userdata;
	char end[64];
	char sentence[SENTENCE_SIZE];

	child_describe_end(how, end, sizeof end);
	(void) snprintf(sentence, sizeof sentence, "%s %s%s", c->title, end,
	                was_ready ? "" : " before it was ready");
	if (is_stopping(s)) {
		/* Exit code 1 while finishing was worded by the export itself. */
		if (was_ready && how->si_code != CLD_EXITED && !s->killing)
			log_event(EVENT_CHILD_DIED, &about, "%s", sentence);
		if (was_ready && (how->si_code != CLD_EXITED || how->si_status != 0))
			s->exit_code = 1;
		stopping_step(s);
		return;
	}
	if (s->phase == PHASE_EXPORTS) {
		/* Exit code 1 without READY: it has said why. */
		if (was_ready || how->si_code != CLD_EXITED || how->si_status != 1)
			log_event(EVENT_CHILD_DIED, &about, "%s", sentence);
		supervisor_exports_step(s);
		return;
	}
	if (is_idle_end(c, was_ready, how)) {
		log_about(LOG_DEBUG, &about, "%s was idle and has ended", c->title);
		c->delay = 0;
		(void) child_again(c);
		return;
	}
	log_event(EVENT_CHILD_DIED, &about, "%s; it starts again when the next client asks", sentence);
	if (!was_ready)
		pending_refuse(served_of(c)->channel, sentence);
	(void) child_again(c);
}

static void on_negotiator_ready(struct child *c)
{
	struct supervisor *s = c->userdata;

	if (s->phase == PHASE_NEGOTIATOR)
		announce(s);
}

static void on_negotiator_ended(struct child *c, bool was_ready, const siginfo_t *how)
{
	struct supervisor *s = c->userdata;
	char end[64];
	uint64_t delay;

	child_describe_end(how, end, sizeof end);
	if (is_stopping(s)) {
		if (was_ready && how->si_code != CLD_EXITED && !s->killing)
			log_event(EVENT_CHILD_DIED, NULL, "%s %s", c->title, end);
		stopping_step(s);
		return;
	}
	if (s->phase == PHASE_NEGOTIATOR) {
		log_event(EVENT_CHILD_DIED, NULL, "%s %s before it was ready, so nothing is served",
		          c->title, end);
		stopping_begin(s, 1);
		return;
	}
	delay = child_again(c);
	log_event(EVENT_CHILD_DIED, NULL, "%s %s%s; it starts again in %" PRIu64 " ms; clients in "
	          "transmission go on", c->title, end, was_ready ? "" : " before it was ready",
	          delay / 1000);
}

/* READY=1 counts only from the process that we started; exits are handled later than what
 * was said before them. */
static int on_notify(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct supervisor *s = userdata;
	pid_t sender;

	(void) source;
	(void) events;
	while (notify_receive(fd, &sender)) {
		if (sender == s->negotiator.pid)
			child_is_ready(&s->negotiator);
		if (s->tls.pid && sender == s->tls.pid)
			child_is_ready(&s->tls);
		for (size_t i = 0; i < s->n_exports; i++)
			if (sender == s->exports[i].child.pid)
				child_is_ready(&s->exports[i].child);
	}
	return 0;
}

static int prepare_negotiator(struct supervisor *s, struct failure *why)
{
	struct child *c = &s->negotiator;
	AUTO_FREE char *exports = NULL;
	AUTO_FREE char *channels = NULL;
	AUTO_FREE char *control = runtime_control(s->runtime, NULL);
	AUTO_FREE char *tls = NULL, *policy = NULL;

	*c = (struct child) {
		.title = strdup("nbd-negotiator"),
		.demand = -1,
		.userdata = s,
		.ready = on_negotiator_ready,
		.ended = on_negotiator_ended,
		.plan = { .notify_socket = s->runtime->notify },
	};
	if (asprintf(&exports, "--exports=%s", s->runtime->exports) < 0)
		exports = NULL;
	if (asprintf(&channels, "--channels=%s", s->runtime->folder) < 0)
		channels = NULL;
	if (asprintf(&tls, "--tls=%s", s->runtime->tls) < 0)
		tls = NULL;
	if (asprintf(&policy, "--tls-policy=%s",
	             tls_policy_word(serve_options_tls(s->options))) < 0)
		policy = NULL;
	if (!c->title || !exports || !channels || !control || !tls || !policy)
		return fail(why, ENOMEM, "cannot prepare nbd-negotiator");

	/* Where the certificate is all that keeps others out, there has to be one. */
	const char *words[] = { exports, channels, control, s->options->tls ? tls : NULL,
	                        s->options->tls ? policy : NULL,
	                        serve_options_tls_guards(s->options) ?
	                        "--client-certificate=required" : NULL,
	                        s->options->debug ? "--debug" : NULL };

	return child_set_argv(c, "nbd-negotiator", words, ARRAY_LEN(words), why);
}

static int prepare_export(struct supervisor *s, struct served *e, struct failure *why)
{
	struct child *c = &e->child;
	const char *label = e->settings->label;
	AUTO_FREE char *exports = NULL;
	AUTO_FREE char *control = runtime_control(s->runtime, label);
	int r = runtime_add(s->runtime, e->settings, &e->channel, why);

	if (r < 0)
		return r;
	*c = (struct child) {
		.demand = e->channel,
		.userdata = s,
		.ready = on_export_ready,
		.ended = on_export_ended,
		.plan = { .notify_socket = s->runtime->notify, .fds = &e->channel, .n_fds = 1,
		          .fd_names = "channel", .instance = label },
	};
	if (asprintf(&c->title, "nbd-export[%s]", label) < 0)
		c->title = NULL;
	if (asprintf(&exports, "--exports=%s", s->runtime->exports) < 0)
		exports = NULL;
	if (!c->title || !exports || !control)
		return fail(why, ENOMEM, "cannot prepare nbd-export for %s", label);

	const char *words[] = { exports, control, "--control-own-user",
	                        s->options->debug ? "--debug" : NULL, "--", label };

	return child_set_argv(c, "nbd-export", words, ARRAY_LEN(words), why);
}

static int prepare_loop(struct supervisor *s, struct failure *why)
{
	sd_event_source *source;
	int r = service_new_event(&s->event, why);

	if (r == 0)
		r = notify_listen(s->runtime->notify, &s->notify, why);
	if (r < 0)
		return r;
	r = sd_event_add_io(s->event, &source, s->notify, EPOLLIN, on_notify, s);
	if (r >= 0)
		r = sd_event_source_set_priority(source, SD_EVENT_PRIORITY_IMPORTANT);
	if (r >= 0)
		r = sd_event_source_set_floating(source, true);
	if (r < 0)
		return fail(why, -r, "cannot watch %s", s->runtime->notify);
	sd_event_source_unref(source);
	return stopping_watch_signals(s, why);
}

/* Everything exists before the first child starts. */
static int prepare(struct supervisor *s, const struct export_list *list, struct failure *why)
{
	int r = prepare_loop(s, why);

	if (r < 0)
		return r;
	s->exports = calloc(list->n, sizeof *s->exports);
	if (!s->exports)
		return fail(why, ENOMEM, "cannot prepare %zu exports", list->n);
	for (; s->n_exports < list->n; s->n_exports++)
		s->exports[s->n_exports] = (struct served) {
			.settings = &list->items[s->n_exports],
			.channel = -1,
		};
	r = prepare_negotiator(s, why);
	if (r == 0)
		r = tls_child_prepare(s, why);
	for (size_t i = 0; i < s->n_exports && r == 0; i++)
		r = prepare_export(s, &s->exports[i], why);
	return r;
}

/* A child that is left, because the loop itself failed, must not be. */
static void clear_child(struct child *c)
{
	if (child_runs(c)) {
		(void) kill(c->pid, SIGKILL);
		(void) waitpid(c->pid, NULL, 0);
	}
	child_clear(c);
}

static void clear(struct supervisor *s)
{
	client_sockets_close(&s->sockets);
	clear_child(&s->negotiator);
	clear_child(&s->tls);
	close_fd(&s->tls_channel);
	for (size_t i = 0; i < s->n_exports; i++) {
		clear_child(&s->exports[i].child);
		close_fd(&s->exports[i].channel);
	}
	free(s->exports);
	free(s->socket_names);
	close_fd(&s->notify);
	s->patience = sd_event_source_disable_unref(s->patience);
	service_end_event(s->event);
	s->event = NULL;
}

static int start_exports(struct supervisor *s, struct failure *why)
{
	int started = s->options->tls ? child_start(&s->tls, s->event, why) : 0;

	if (started < 0)
		return started;
	for (size_t i = 0; i < s->n_exports; i++) {
		int r = child_start(&s->exports[i].child, s->event, why);

		if (r < 0)
			return r;
	}
	return 0;
}

int supervise(const struct serve_options *o, const struct runtime *rt,
              const struct export_list *list)
{
	struct supervisor s = { .options = o, .runtime = rt, .notify = -1, .tls_channel = -1 };
	struct failure why = { 0 };
	int r = prepare(&s, list, &why);

	if (r == 0) {
		if (start_exports(&s, &why) < 0) {
			log_error("%s", why.text);
			stopping_begin(&s, 1);
		}
		r = sd_event_loop(s.event);
		if (r < 0)
			log_error("the event loop failed: %s", strerror(-r));
	} else {
		log_error("%s", why.text);
	}
	clear(&s);
	return r < 0 ? 1 : r;
}
