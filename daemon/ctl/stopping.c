/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end: first nobody gets in any more, then the exports finish what they have, then
 * the rest goes.  Impatience is answered with words, and only the third time with SIGKILL.
 */
#include "ctl/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"

#define NEGOTIATOR_PATIENCE (5 * USEC_PER_SEC)
#define TLS_PATIENCE (10 * USEC_PER_SEC)
#define EXPORT_PATIENCE (90 * USEC_PER_SEC)   /* an export may have much to flush */

static const int stop_signals[] = { SIGTERM, SIGINT, SIGHUP };

void stopping_block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(stop_signals); i++)
		sigaddset(&set, stop_signals[i]);
	sigaddset(&set, SIGCHLD);       /* sd_event_add_child(3) wants it blocked */
	(void) sigprocmask(SIG_BLOCK, &set, NULL);
	(void) signal(SIGPIPE, SIG_IGN);
}

/* "nbd-export[web1], nbd-export[db]": those that still run, as many as fit. */
static void name_running(const struct supervisor *s, char *ret, size_t size)
{
	size_t len = 0;

	ret[0] = '\0';
	if (child_runs(&s->negotiator))
		len = (size_t) snprintf(ret, size, "%s", s->negotiator.title);
	for (size_t i = 0; i < s->n_exports && len < size; i++)
		if (child_runs(&s->exports[i].child))
			len += (size_t) snprintf(ret + len, size - len, "%s%s", len ? ", " : "",
			                         s->exports[i].child.title);
	if (child_runs(&s->tls) && len < size)
		(void) snprintf(ret + len, size - len, "%s%s", len ? ", " : "", s->tls.title);
}

/* Returns how many there were. */
static unsigned signal_exports(struct supervisor *s, int signal_number)
{
	unsigned n = 0;

	for (size_t i = 0; i < s->n_exports; i++) {
		n += child_runs(&s->exports[i].child);
		child_signal(&s->exports[i].child, signal_number);
	}
	return n;
}

/* Killed exports may not have flushed: that is not a clean end. */
static void kill_all(struct supervisor *s)
{
	s->killing = true;
	child_signal(&s->negotiator, SIGKILL);
	child_signal(&s->tls, SIGKILL);
	if (signal_exports(s, SIGKILL) > 0)
		s->exit_code = 1;
}

static int on_patience_over(sd_event_source *source, uint64_t when, void *userdata)
{
	struct supervisor *s = userdata;
	char names[256];

	(void) source;
	(void) when;
	name_running(s, names, sizeof names);
	log_error("%s did not stop in time and is killed", names);
	if (s->phase == PHASE_STOP_EXPORTS) {
		kill_all(s);
	} else {
		s->killing = true;
		child_signal(s->phase == PHASE_STOP_TLS ? &s->tls : &s->negotiator, SIGKILL);
	}
	return 0;
}

/* Without a timer the wait has no end but Ctrl-C, which is still better than no wait. */
static void set_patience(struct supervisor *s, uint64_t patience)
{
	int r;

	s->patience = sd_event_source_disable_unref(s->patience);
	r = sd_event_add_time_relative(s->event, &s->patience, CLOCK_MONOTONIC, patience, 0,
	                               on_patience_over, s);
	if (r < 0)
		log_warning("cannot limit the time to stop, ignoring: %s", strerror(-r));
}

static bool any_export_runs(const struct supervisor *s)
{
	for (size_t i = 0; i < s->n_exports; i++)
		if (child_runs(&s->exports[i].child))
			return true;
	return false;
}

void stopping_step(struct supervisor *s)
{
	if (s->phase == PHASE_STOP_NEGOTIATOR && !child_runs(&s->negotiator)) {
		s->phase = PHASE_STOP_EXPORTS;
		s->killing = false;
		set_patience(s, EXPORT_PATIENCE);
		(void) signal_exports(s, SIGTERM);
	}
	if (s->phase == PHASE_STOP_EXPORTS && !any_export_runs(s)) {
		s->phase = PHASE_STOP_TLS;
		s->killing = false;
		set_patience(s, TLS_PATIENCE);
		child_signal(&s->tls, SIGTERM);
	}
	if (s->phase == PHASE_STOP_TLS && !child_runs(&s->tls))
		(void) sd_event_exit(s->event, s->exit_code);
}

void stopping_begin(struct supervisor *s, int exit_code)
{
	if (is_stopping(s))
		return;
	s->exit_code = exit_code;
	s->phase = PHASE_STOP_NEGOTIATOR;
	notify("STOPPING=1\nSTATUS=finishing what is in flight");
	client_sockets_close(&s->sockets);
	set_patience(s, NEGOTIATOR_PATIENCE);
	child_signal(&s->negotiator, SIGTERM);
	stopping_step(s);
}

/* One more Ctrl-C while it stops. */
static void on_impatience(struct supervisor *s)
{
	char names[256];

	name_running(s, names, sizeof names);
	if (s->n_interrupts < 3) {
		log_notice("waiting for %s to finish and flush what clients were promised; "
		           "%s Ctrl-C kills what is left", names,
		           s->n_interrupts < 2 ? "a third" : "another");
		return;
	}
	log_warning("killing %s", names);
	kill_all(s);
}

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *info,
                          void *userdata)
{
	struct supervisor *s = userdata;
	bool interrupt = info->ssi_signo == SIGINT;

	(void) source;
	s->n_interrupts += interrupt;
	if (!is_stopping(s)) {
		log_info("stopping, because of %s",
		         interrupt ? "Ctrl-C" : info->ssi_signo == SIGHUP ? "SIGHUP" : "SIGTERM");
		stopping_begin(s, 0);
	} else if (interrupt) {
		on_impatience(s);
	}
	return 0;
}

/* nohup(1) means it: SIGHUP stays ignored. */
static bool is_ignored(int signal_number)
{
	struct sigaction now;

	return sigaction(signal_number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

int stopping_watch_signals(struct supervisor *s, struct failure *why)
{
	for (size_t i = 0; i < ARRAY_LEN(stop_signals); i++) {
		int r;

		if (stop_signals[i] == SIGHUP && is_ignored(SIGHUP))
			continue;
		r = sd_event_add_signal(s->event, NULL, stop_signals[i], on_stop_signal, s);
		if (r < 0)
			return fail(why, -r, "cannot watch for signals");
	}
	return 0;
}
