/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl serve: exports disks without systemd, root or configuration.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ctl/export-list.h"
#include "ctl/runtime.h"
#include "ctl/serve-options.h"
#include "ctl/supervisor.h"

static void print_help(void)
{
	(void) printf(
"Usage: nbdctl serve [OPTION...] [NAME=]PATH...\n"
"       nbdctl serve [OPTION...] --config DIR\n"
"\n"
"Serve disks over NBD, in the foreground, until Ctrl-C.  Each PATH, a block\n"
"device or a file with a disk's contents, becomes an export called NAME, or like\n"
"the last part of PATH.  A single export is also found under the empty name.\n"
"Either all of them are served or none.  Once clients can connect, one line for\n"
"each export and socket says where:  serving NAME at URI\n"
"\n");
	serve_options_print();
	(void) printf(
"\n"
"Examples:\n"
"  nbdctl serve disk.img\n"
"        on a private unix socket; the URI that it prints works with\n"
"        nbdinfo 'nbd+unix:///disk.img?socket=...' and other clients\n"
"  nbdctl serve --listen 127.0.0.1:10809 web=/dev/vg0/web db=/dev/vg0/db\n"
"        then: qemu-img convert -p nbd://127.0.0.1:10809/web web.qcow2\n"
"  nbdctl serve --tls /etc/pki/nbd --tls-required --listen '*:10809' disk.img\n"
"        for who has a certificate of the CA there: nbds://HOST/disk.img\n"
"  nbdctl serve --read-only --shared --unix /run/backup.sock /dev/vda\n"
"        lets a backup program read a disk that is in use here\n"
"\n"
"Ctrl-C or SIGTERM lets no new client in, finishes and flushes what is in flight,\n"
"and leaves no process or socket behind.  A second Ctrl-C tells what is awaited;\n"
"a third one kills it.\n"
"\n"
"Exit status: 0 after such a stop; 1 if something could not be served or finished;\n"
"2 for a wrong command line.\n");
}

/* What to exit with: what is wrong with the words given is usage; what the system refuses is
 * not. */
static int tell(const struct failure *why)
{
	log_error("%s", why->text);
	return why->code == EINVAL || why->code == EEXIST ? EXIT_USAGE : 1;
}

static size_t longest_label(const struct export_list *list)
{
	size_t longest = 0;

	for (size_t i = 0; i < list->n; i++)
		if (strlen(list->items[i].label) > longest)
			longest = strlen(list->items[i].label);
	return longest;
}

/* The private folder lives as long as this function. */
static int serve_list(const struct serve_options *o, struct export_list *list)
{
	struct failure why = { 0 };
	struct runtime rt;
	int code;

	stopping_block_signals();
	if ((o->insecure_listen || serve_options_tls_guards(o)) &&
	    export_list_let_anybody_in(list, &why) < 0) {
		log_error("%s", why.text);
		return 1;
	}
	if (runtime_make(longest_label(list), &rt, &why) < 0) {
		log_error("%s", why.text);
		return 1;
	}
	code = supervise(o, &rt, list);
	runtime_remove(&rt);
	return code;
}

static int serve_paths(const struct serve_options *o)
{
	struct failure why = { 0 };
	struct export_list list;
	int code;

	if (export_list_from_paths(o, &list, &why) < 0)
		return tell(&why);
	code = serve_list(o, &list);
	export_list_clear(&list);
	return code;
}

/* An address that other machines reach needs a rule that says which of them may come.  An export
 * without one is this machine's alone, whatever the address. */
static int check_rules(const struct serve_options *o, const struct export_list *list,
                       struct failure *why)
{
	const char *address = serve_options_open_address(o);
	size_t n_ruled = 0;

	if (!address)
		return 0;
	for (size_t i = 0; i < list->n; i++)
		n_ruled += *list->items[i].allow != '\0';
	if (n_ruled == 0)
		return fail_plain(why, EINVAL, "--listen %s: other machines reach that address, "
		                  "and no file of %s has an access rule: say there who may come "
		                  "(Allow=10.0.5.0/24), listen on 127.0.0.1 or [::1], or add "
		                  "--insecure-listen if the network is yours alone", address,
		                  o->config);
	for (size_t i = 0; i < list->n; i++)
		if (!*list->items[i].allow)
			log_notice("%s has no Allow=: it is for this machine alone",
			           list->items[i].label);
	return 0;
}

/* Their files ask for what there is not. */
static void tell_unreachable(const struct serve_options *o, const struct export_list *list)
{
	for (size_t i = 0; i < list->n && !o->tls; i++) {
		const struct export_settings *s = &list->items[i];

		if (s->tls == TLS_POLICY_REQUIRE || (s->identity && *s->identity))
			log_warning("%s is for clients with TLS (%s), which there is only with "
			            "--tls: nobody can use it", s->label,
			            s->tls == TLS_POLICY_REQUIRE ? "TLS=require" : "Identity=");
	}
}

static int serve_folder(const struct serve_options *o)
{
	struct failure why = { 0 };
	struct export_list list;
	int code = 1;

	if (export_list_from_folder(o->config, &list, &why) < 0) {
		log_error("%s", why.text);
		return 1;
	}
	if (list.n == 0)
		log_error("nothing is served: the folder %s has no good LABEL.conf", o->config);
	else if (check_rules(o, &list, &why) < 0)
		code = tell(&why);
	else {
		tell_unreachable(o, &list);
		code = serve_list(o, &list);
	}
	export_list_clear(&list);
	return code;
}

int verb_serve(int argc, char **argv)
{
	struct failure why = { 0 };
	struct serve_options o;
	int code = 0;

	if (serve_options_parse(argc, argv, &o, &why) < 0) {
		log_error("%s (nbdctl serve --help tells more)", why.text);
		return EXIT_USAGE;
	}
	if (o.debug)
		log_set_level(LOG_DEBUG);
	if (o.help)
		print_help();
	else
		code = o.config ? serve_folder(&o) : serve_paths(&o);
	serve_options_clear(&o);
	return code;
}
