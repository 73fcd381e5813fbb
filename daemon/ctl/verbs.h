/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verbs of nbdctl: each a function with the arguments from the verb on; it
 * returns the exit code: 0, 1 for what could not be done, 2 for a wrong command line.
 */
#pragma once

#define EXIT_USAGE 2

int verb_add(int argc, char **argv);
int verb_attach(int argc, char **argv);
int verb_attached(int argc, char **argv);
int verb_bitmap(int argc, char **argv);
int verb_check(int argc, char **argv);
int verb_checkpoint(int argc, char **argv);
int verb_clear_error(int argc, char **argv);
int verb_clients(int argc, char **argv);
int verb_detach(int argc, char **argv);
int verb_drain(int argc, char **argv);
int verb_kick(int argc, char **argv);
int verb_list(int argc, char **argv);
int verb_log(int argc, char **argv);
int verb_machine_stops(int argc, char **argv);
int verb_reload(int argc, char **argv);
int verb_remove(int argc, char **argv);
int verb_resume(int argc, char **argv);
int verb_serve(int argc, char **argv);
int verb_show(int argc, char **argv);
int verb_status(int argc, char **argv);
int verb_tls(int argc, char **argv);
