/* SPDX-License-Identifier: Apache-2.0 */
/* What the command-line tools have in common: start and end, PROPERTY=VALUE, files that are written or are an error. */
#ifndef TOOL_H
#define TOOL_H

#include <fk.h>

/* Takes the locale for messages and arguments (numbers always have a point), parses the options, and answers --help and
 * --version itself. Text options are G_OPTION_ARG_FILENAME and go through tool_utf8. False: the program ends with
 * *status, 0 after --help and --version, 2 after a mistake, which was printed.
 * name: "fluxkontext-..."; arguments: what follows the options. summary: an example (two blanks in front), sentences,
 * and "Exit: " with the exit status; man pages are made of it (describe.py). */
bool tool_begin(const char *name, const char *arguments, const char *summary, const GOptionEntry *entries, int *argc,
                char ***argv, int *status);
/* Closes standard output; the exit status is 1 instead of 0 where not all of it could be written. */
int tool_end(const char *name, int status);
/* Of text from elsewhere, what a terminal shows: valid UTF-8, and \uXXXX for what would steer it. (transfer full) */
char *tool_printable(const char *text);
/* An argument as UTF-8: as it is, else from the locale's encoding. (transfer full): NULL with an error. */
char *tool_utf8(const char *argument, GError **error);
/* PROPERTY=VALUE goes to the options or to the settings, whichever has it. options NULL: settings only. */
bool tool_set(FkOptions *options, FkSettings *settings, const char *pair, GError **error);
/* Tells on stderr which settings change nothing and what a preset lacks (fk_settings_idle). edits: whether these are
 * the settings of an edit and not what requests begin from, whose prompts come with them. */
void tool_tell_idle(const char *program, const FkSettings *settings, bool edits);
/* Is this the name, of `length` bytes, of a property that names files of this machine (FkProperty.file)? */
bool tool_names_file(const char *name, size_t length);
/* One setting of a request that came from elsewhere: as fk_settings_set, but none that names files of this machine. */
bool tool_set_foreign(FkSettings *settings, const char *name, const char *value, GError **error);
/* Before the work: whether fk_file_write would refuse this file. A FIFO stays open until the program ends, so that its
 * reader waits that long. */
bool tool_check_output(const char *path, GError **error);
/* "1024x768", each from 1 to 65535. option: for the message. */
bool tool_size(const char *option, const char *text, int *width, int *height, GError **error);

#endif
