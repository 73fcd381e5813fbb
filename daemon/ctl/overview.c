/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/overview.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/strays.h"

/* A copy that is the caller's; "" for what is not there. */
static char *copy(const char *text)
{
	return strdup(text ? text : "");
}

/* As far as it says so itself. */
static int describe_stray(struct export_state *e, struct export_settings *s)
{
	free(s->name);
	free(s->device);
	s->name = copy(e->runs ? e->running.name : s->label);
	s->device = copy(e->running.device);
	s->description = copy(e->running.description);
	s->allow = copy(NULL);
	s->identity = copy(NULL);
	if (!s->name || !s->device || !s->description || !s->allow || !s->identity)
		return -ENOMEM;
	free(e->reason);
	if (asprintf(&e->reason, "%s, but has no file any more: write it again, or nbdctl remove %s",
	             e->runs ? "it runs" : "clients may start it", s->label) < 0)
		e->reason = NULL;
	e->word = "no-file";
	return 0;
}

/* A folder that nobody is in is no export. */
static int add_strays(struct overview *o, const struct stray *strays, size_t n,
                      struct failure *why)
{
	for (size_t i = 0; i < n; i++) {
		size_t at = o->files.n_good + i;
		struct export_state *e = &o->states[at];

		if (!strays[i].has_unit && !e->runs && !e->silent) {
			export_state_clear(e);
			continue;
		}
		if (describe_stray(e, &o->settings[at]) < 0)
			return fail(why, ENOMEM, "cannot list what has no file");
		o->states[o->n++] = *e;
		if (o->n - 1 != at)
			*e = (struct export_state) { 0 };
	}
	return 0;
}

static int read_states(struct overview *o, const struct places *p, const struct stray *strays,
                       size_t n, struct inquiry *also, struct failure *why)
{
	size_t n_good = o->files.n_good;
	int r;

	o->settings = calloc(n_good + n + 1, sizeof *o->settings);
	if (!o->settings)
		return fail(why, ENOMEM, "cannot list %zu exports", n_good + n);
	if (n_good)
		memcpy(o->settings, o->files.good, n_good * sizeof *o->settings);
	for (size_t i = 0; i < n; i++) {
		o->settings[n_good + i].label = copy(strays[i].label);
		o->settings[n_good + i].device = copy(NULL);
		if (!o->settings[n_good + i].label || !o->settings[n_good + i].device)
			return fail(why, ENOMEM, "cannot list what has no file");
	}
	r = export_states_read(p, o->settings, n_good + n, also, &o->states, why);
	if (r < 0)
		return r;
	o->n = n_good;
	return add_strays(o, strays, n, why);
}

int overview_read(const struct places *p, struct inquiry *also, struct overview *ret,
                  struct failure *why)
{
	struct overview o = { .states = NULL };
	struct stray *strays = NULL;
	size_t n = 0;
	int r = files_read(p->exports, &o.files, why);

	if (r < 0)
		return r;
	strays_look(p, &strays, &n);
	o.n_strays = n;
	r = read_states(&o, p, strays, n, also, why);
	strays_free(strays, n);
	if (r < 0)
		overview_clear(&o);
	else
		*ret = o;
	return r;
}

void overview_clear(struct overview *o)
{
	if (o->states)
		export_states_free(o->states, o->files.n_good + o->n_strays);
	for (size_t i = 0; o->settings && i < o->n_strays; i++)
		export_settings_clear(&o->settings[o->files.n_good + i]);
	free(o->settings);
	files_clear(&o->files);
	*o = (struct overview) { .states = NULL };
}
