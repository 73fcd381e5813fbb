/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kernel modules, by libkmod: loads one that is missing, and only when somebody asked for that.
 */
#pragma once

#include "base/failure.h"

/* Loads the module `name`, with what it needs and with the parameters of /etc/modprobe.d.  0 also
 * where it is loaded or built in.  Root alone may. */
int module_load(const char *name, struct failure *why);
