/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The catalogue: from files to names. */
#include "negotiator/catalogue.h"

#include <errno.h>
#include <string.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "base/log.h"
#include "negotiator/export-link.h"

/* A catalogue that is being made. */
struct making {
	struct catalogue *new;
	const struct catalogue *previous;       /* NULL: none */
	bool *keeps;                    /* for each entry of `previous`: its file is bad now */
};

static void log_bad_file(void *userdata, const char *path, const struct failure *why)
{
	const struct making *m = userdata;
	AUTO_FREE char *label = NULL;
	struct failure ignored = { 0 };
	struct catalogue_entry *entry = NULL;

	m->new->n_bad++;
	if (export_label_of(path, &label, &ignored) == 0 && m->previous)
		entry = catalogue_find_label(m->previous, label);
	if (!entry) {
		log_event(EVENT_SETTINGS_SKIPPED, &(struct subject) { .export_label = label },
		          "%s; the file is skipped", why->text);
		return;
	}
	m->keeps[entry - m->previous->entries] = true;
	log_event(EVENT_SETTINGS_KEPT, &(struct subject) { .export_label = entry->label },
	          "%s; what the file said before stays in force", why->text);
}

static void clear_entry(struct catalogue_entry *entry)
{
	export_link_unref(entry->link);
	access_list_clear(&entry->rules);
	identity_list_clear(&entry->identities);
	free(entry->label);
	free(entry->name);
	free(entry->description);
	free(entry->allow);
	free(entry->identity);
}

/* What holds for the entry: its own rules, those for all, or who is on this machine. */
static int set_rules(const struct catalogue *c, struct catalogue_entry *entry,
                     struct failure *why)
{
	entry->rules_text = ACCESS_DEFAULT;
	entry->rules_from = "the default";
	if (*entry->allow) {
		entry->rules_text = entry->allow;
		entry->rules_from = "the export's file";
	} else if (*c->allow) {
		entry->rules_text = c->allow;
		entry->rules_from = "negotiator.conf";
	}
	return access_list_parse(entry->rules_text, &entry->rules, why);
}

/* What holds for the entry about TLS: of its own, or for all. */
static int set_tls(const struct catalogue *c, struct catalogue_entry *entry, struct failure *why)
{
	const bool own = *entry->identity;

	entry->tls = entry->own_tls ? entry->own_tls : c->tls;
	entry->identities_from = own ? "the export's file" : "negotiator.conf";
	return identity_list_parse(own ? entry->identity : c->identity, &entry->identities, why);
}

/* That nobody can use it is no fault of its file, and the others'. */
static void warn_of_nobody(const struct catalogue *c, const struct catalogue_entry *entry)
{
	const struct subject about = { .export_label = entry->label };

	if (entry->tls != TLS_POLICY_OFF)
		return;
	if (c->tls == TLS_POLICY_REQUIRE)
		log_about(LOG_WARNING, &about, "TLS=off in its file, but TLS=require in "
		          "negotiator.conf: nobody can use it");
	else if (entry->identities.n)
		log_about(LOG_WARNING, &about, "Identity= (in %s) holds for it, but TLS=off, so "
		          "that nobody can say who it is: nobody can use it",
		          entry->identities_from);
}

/* Takes the entry in any case.  There is room for it. */
static int add(struct catalogue *c, struct catalogue_entry entry, struct failure *why)
{
	int r = -ENOMEM;

	if (!entry.label || !entry.name || !entry.description || !entry.allow || !entry.identity)
		(void) fail(why, ENOMEM, "cannot keep an export");
	else
		r = set_rules(c, &entry, why);
	if (r == 0)
		r = set_tls(c, &entry, why);
	if (r < 0) {
		clear_entry(&entry);
		return r;
	}
	warn_of_nobody(c, &entry);
	c->has_tls |= entry.tls != TLS_POLICY_OFF;
	c->entries[c->n++] = entry;
	return 0;
}

/* The reader has seen to it that names are short, UTF-8 and used once. */
static int add_read(struct catalogue *c, struct export_settings *s, struct failure *why)
{
	return add(c, (struct catalogue_entry) {
		.label = take_ptr(s->label),
		.name = take_ptr(s->name),
		.description = take_ptr(s->description),
		.allow = take_ptr(s->allow),
		.identity = take_ptr(s->identity),
		.own_tls = s->tls,
		.is_default = s->is_default,
		.max_per_source = s->max_per_source,
	}, why);
}

static bool has_default(const struct catalogue *c)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->entries[i].is_default)
			return true;
	return false;
}

/* What an export was before its file went bad, unless another has taken its name. */
static int keep(struct catalogue *c, const struct catalogue_entry *old, struct failure *why)
{
	for (size_t i = 0; i < c->n; i++) {
		if (strcmp(c->entries[i].name, old->name) != 0)
			continue;
		log_event(EVENT_SETTINGS_SKIPPED,
		          &(struct subject) { .export_label = old->label },
		          "its name is that of %s now, so it is not served until its file is good",
		          c->entries[i].label);
		return 0;
	}
	return add(c, (struct catalogue_entry) {
		.label = strdup(old->label),
		.name = strdup(old->name),
		.description = strdup(old->description),
		.allow = strdup(old->allow),
		.identity = strdup(old->identity),
		.own_tls = old->own_tls,
		.is_default = old->is_default && !has_default(c),
		.max_per_source = old->max_per_source,
	}, why);
}

static int by_label(const void *a, const void *b)
{
	const struct catalogue_entry *x = a, *y = b;

	return strcmp(x->label, y->label);
}

static void choose_nameless(struct catalogue *c)
{
	c->nameless = c->n == 1 ? c->entries : NULL;
	for (size_t i = 0; i < c->n; i++)
		if (c->entries[i].is_default)
			c->nameless = &c->entries[i];
}

/* Fills the new catalogue from what was read, and what is kept of the previous one. */
static int fill(struct making *m, struct export_settings *all, size_t n, struct failure *why)
{
	size_t n_previous = m->previous ? m->previous->n : 0;
	struct catalogue *c = m->new;
	int r = 0;

	c->entries = calloc(n + n_previous + 1, sizeof *c->entries);
	if (!c->entries)
		return fail(why, ENOMEM, "cannot keep %zu exports", n);
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_read(c, &all[i], why);
	for (size_t i = 0; i < n_previous && r == 0; i++)
		if (m->keeps[i])
			r = keep(c, &m->previous->entries[i], why);
	qsort(c->entries, c->n, sizeof *c->entries, by_label);
	choose_nameless(c);
	return r;
}

static int read_files(struct making *m, const char *dir, struct failure *why)
{
	struct export_settings *all = NULL;
	size_t n = 0;
	int r;

	r = export_settings_read_folder(dir, &all, &n, log_bad_file, m, why);
	if (r == -ENOENT && !m->previous) {
		log_notice("%s: no exports until there is one", why->text);
		*why = (struct failure) { 0 };
		r = 0;
	}
	if (r < 0)
		return r;
	r = fill(m, all, n, why);
	for (size_t i = 0; i < n; i++)
		export_settings_clear(&all[i]);
	free(all);
	return r;
}

/* NULL without memory. */
static struct catalogue *new_catalogue(const struct negotiator_settings *all)
{
	struct catalogue *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	*c = (struct catalogue) {
		.n_refs = 1,
		.allow = strdup(all->allow),
		.identity = strdup(all->identity),
		.tls = all->tls,
		.has_tls = all->tls != TLS_POLICY_OFF,
	};
	if (!c->allow || !c->identity) {
		catalogue_unref(c);
		return NULL;
	}
	return c;
}

int catalogue_read(const char *dir, const struct negotiator_settings *all,
                   const struct catalogue *previous, struct catalogue **ret, struct failure *why)
{
	size_t n_previous = previous ? previous->n : 0;
	AUTO_FREE bool *keeps = calloc(n_previous + 1, sizeof *keeps);
	struct catalogue *c = new_catalogue(all);
	struct making m = { .new = c, .previous = previous, .keeps = keeps };
	int r;

	if (!keeps || !c)
		r = fail(why, ENOMEM, "cannot keep the catalogue");
	else
		r = read_files(&m, dir, why);
	if (r < 0) {
		catalogue_unref(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct catalogue *catalogue_ref(struct catalogue *c)
{
	c->n_refs++;
	return c;
}

void catalogue_unref(struct catalogue *c)
{
	if (!c || --c->n_refs > 0)
		return;
	for (size_t i = 0; i < c->n; i++)
		clear_entry(&c->entries[i]);
	free(c->entries);
	free(c->allow);
	free(c->identity);
	free(c);
}

struct catalogue_entry *catalogue_find(const struct catalogue *c, struct span name)
{
	if (name.len == 0)
		return c->nameless;
	for (size_t i = 0; i < c->n; i++)
		if (span_equal(span_of(c->entries[i].name), name))
			return &c->entries[i];
	return NULL;
}

struct catalogue_entry *catalogue_find_label(const struct catalogue *c, const char *label)
{
	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->entries[i].label, label) == 0)
			return &c->entries[i];
	return NULL;
}
