/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One supervised process: started, awaited until READY=1, started again with back-off.
 *
 * What its start or end means for the others is the supervisor's to decide: it hears of
 * both, and asks with child_again() for another life.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/failure.h"
#include "ctl/spawn.h"

enum child_state {
	CHILD_DOWN,             /* no process, and none comes by itself */
	CHILD_STARTING,         /* a process; READY=1 is awaited */
	CHILD_READY,
	CHILD_BACKING_OFF,      /* no process; waits out its delay */
	CHILD_ON_DEMAND,        /* no process; waits for somebody to connect */
};

struct child {
	char *title;                    /* "nbd-export[web1]", for log lines */
	char *argv[12];                  /* each its own memory; argv[0] is the program's path */
	struct spawn_plan plan;         /* borrows argv and fds */
	int demand;                     /* the listening socket to wait on before another
	                                 * start, -1 to start at once; borrowed */
	void *userdata;                 /* of the two functions below */
	void (*ready)(struct child *c);
	/* The process has ended; `was_ready`: it had said READY=1 before. */
	void (*ended)(struct child *c, bool was_ready, const siginfo_t *how);

	/* child.c's own */
	enum child_state state;
	pid_t pid;                      /* 0 without a process */
	uint64_t ready_at;              /* microseconds, monotonic */
	uint64_t delay;                 /* microseconds before the next start */
	sd_event *event;
	sd_event_source *exit_source;
	sd_event_source *timer;         /* the deadline of a start, or the back-off */
	sd_event_source *demand_source;
};

/* Fills its command line: the program of that name, then what is not NULL of the words. */
int child_set_argv(struct child *c, const char *program_name, const char *const *words, size_t n,
                   struct failure *why);

/* Starts it now. */
int child_start(struct child *c, sd_event *event, struct failure *why);

/* READY=1 came from its process. */
void child_is_ready(struct child *c);

/* Starts an ended one again: after its delay, and once somebody connects to `demand`.
 * Returns the delay in microseconds. */
uint64_t child_again(struct child *c);

static inline bool child_runs(const struct child *c)
{
	return c->pid > 0;
}

/* Sends the signal if there is a process, and stops all waiting for another start. */
void child_signal(struct child *c, int signal_number);

/* "was killed by SIGKILL", "ended with exit code 1". */
void child_describe_end(const siginfo_t *how, char *ret, size_t size);

/* Frees all that it owns; it must not run any more. */
void child_clear(struct child *c);
