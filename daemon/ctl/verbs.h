/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verbs of nbdctl: each a function with the arguments from the verb on; it
 * returns the exit code: 0, 1 for what could not be done, 2 for a wrong command line.
 */
#pragma once

#define EXIT_USAGE 2

int verb_serve(int argc, char **argv);
