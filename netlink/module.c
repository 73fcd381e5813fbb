/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loads a module as modprobe(8) does. */
#include "netlink/module.h"

#include <errno.h>
#include <libkmod.h>
#include <stddef.h>
#include <sys/utsname.h>
#include <syslog.h>

static int fail_to_load(const char *name, int code, struct failure *why)
{
	switch (code) {
	case EPERM:
	case EACCES:
		return fail_plain(why, code, "cannot load the module %s: only root may", name);
	default:
		return fail(why, code, "cannot load the module %s", name);
	}
}

/* No file of that name: the kernel's modules are not there, or it was built without. */
static int fail_to_find(const char *name, struct failure *why)
{
	struct utsname kernel;

	if (uname(&kernel) < 0)
		kernel.release[0] = '\0';
	return fail_plain(why, ENOENT, "there is no module %s in /lib/modules/%.80s: install the "
	                  "package that has this kernel's modules", name, kernel.release);
}

static int insert(struct kmod_list *found, const char *name, struct failure *why)
{
	struct kmod_list *item;

	kmod_list_foreach(item, found) {
		struct kmod_module *module = kmod_module_get_module(item);
		int r = kmod_module_probe_insert_module(module,
		                                        KMOD_PROBE_APPLY_BLACKLIST_ALIAS_ONLY,
		                                        NULL, NULL, NULL, NULL);

		(void) kmod_module_unref(module);
		if (r < 0 && r != -EEXIST)
			return r == -ENOENT ? fail_to_find(name, why)
			                    : fail_to_load(name, -r, why);
	}
	return 0;
}

int module_load(const char *name, struct failure *why)
{
	struct kmod_ctx *kmod = kmod_new(NULL, NULL);
	struct kmod_list *found = NULL;
	int r;

	if (!kmod)
		return fail(why, ENOMEM, "cannot load the module %s", name);
	kmod_set_log_priority(kmod, LOG_CRIT);        /* what it would say we say */
	r = kmod_module_new_from_lookup(kmod, name, &found);
	if (r < 0)
		r = fail_to_load(name, -r, why);
	else if (!found)
		r = fail_to_find(name, why);
	else
		r = insert(found, name, why);
	kmod_module_unref_list(found);
	kmod_unref(kmod);
	return r;
}
