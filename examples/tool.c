/* SPDX-License-Identifier: Apache-2.0 */
/* Start, end and files of the tools; see tool.h. */
#include "tool.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

/* GLib's own --help goes through the locale's encoding, which may lack its ellipsis. */
static bool answer(const char *name, const char *summary, GOptionContext *context, bool help, bool version) {
  g_autofree char *text = help ? g_option_context_get_help(context, TRUE, NULL) : NULL;
  if (help) printf("%s\n\n%s", summary, text);
  if (version) printf("%s %s\n", name, FK_VERSION);
  return help || version;
}

bool tool_begin(const char *name, const char *arguments, const char *summary, const GOptionEntry *entries, int *argc,
                char ***argv, int *status) {
  gboolean help = FALSE, version = FALSE;
  const GOptionEntry common[] = {{"help", 'h', 0, G_OPTION_ARG_NONE, &help, "Show this text", NULL},
                                 {"version", 0, 0, G_OPTION_ARG_NONE, &version, "Show the version", NULL},
                                 {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GOptionContext) context = g_option_context_new(arguments);
  g_autoptr(GError) error = NULL;
  setlocale(LC_ALL, "");
  setlocale(LC_NUMERIC, "C");
  g_set_prgname(name);
  g_option_context_set_help_enabled(context, FALSE);
  g_option_context_add_main_entries(context, entries, NULL);
  g_option_context_add_main_entries(context, common, NULL);
  if (!g_option_context_parse(context, argc, argv, &error)) {
    fprintf(stderr, "%s: %s; see --help\n", name, error->message);
    *status = 2;
    return false;
  }
  if (!answer(name, summary, context, help, version)) return true;
  *status = tool_end(name, 0);
  return false;
}

int tool_end(const char *name, int status) {
  errno = 0;
  const bool failed = ferror(stdout);
  if (!fclose(stdout) && !failed) return status;
  fprintf(stderr, "%s: standard output: %s\n", name, errno ? g_strerror(errno) : "not all of it could be written");
  return status ? status : 1;
}

char *tool_utf8(const char *argument, GError **error) {
  if (g_utf8_validate(argument, -1, NULL)) return g_strdup(argument);
  char *text = g_locale_to_utf8(argument, -1, NULL, NULL, NULL);
  if (text) return text;
  g_autofree char *shown = g_strescape(argument, NULL);
  const char *charset;
  g_get_charset(&charset);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "\"%s\" is neither UTF-8 nor the locale's %s", shown, charset);
  return NULL;
}

char *tool_printable(const char *text) {
  g_autofree char *valid = g_utf8_make_valid(text, -1);
  GString *out = g_string_new(NULL);
  for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
    const gunichar c = g_utf8_get_char(p);
    if (g_unichar_isprint(c) && g_unichar_type(c) != G_UNICODE_FORMAT)
      g_string_append_unichar(out, c);
    else
      g_string_append_printf(out, "\\u%04x", c);
  }
  return g_string_free(out, FALSE);
}

bool tool_set(FkOptions *options, FkSettings *settings, const char *pair, GError **error) {
  g_autofree char *text = tool_utf8(pair, error);
  if (!text) return false;
  char *equals = strchr(text, '=');
  if (!equals || equals == text) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "\"%s\": expected PROPERTY=VALUE", text);
    return false;
  }
  *equals = 0;
  return fk_set(options, settings, text, equals + 1, error);
}

bool tool_names_file(const char *name, size_t length) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    if (p[i].file && strlen(p[i].name) == length && !strncmp(p[i].name, name, length)) return true;
  return false;
}

void tool_tell_idle(const char *program, const FkSettings *settings, bool edits) {
  g_auto(GStrv) idle = fk_settings_idle(settings);
  for (char **p = idle; *p; p += 2)
    if (edits || strcmp(*p, "prompt")) fprintf(stderr, "%s: %s changes nothing: %s\n", program, p[0], p[1]);
}

bool tool_set_foreign(FkSettings *settings, const char *name, const char *value, GError **error) {
  if (!tool_names_file(name, strlen(name))) return fk_settings_set(settings, name, value, error);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: names a file of this machine, which a request cannot", name);
  return false;
}

bool tool_check_output(const char *path, GError **error) {
  int held;
  return fk_file_check(path, &held, error);
}

bool tool_size(const char *option, const char *text, int *width, int *height, GError **error) {
  char rest;
  if (sscanf(text, "%5dx%5d%c", width, height, &rest) == 2 && *width >= 1 && *height >= 1 && *width <= 65535 &&
      *height <= 65535)
    return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: \"%s\" is not WIDTHxHEIGHT, each from 1 to 65535", option,
              text);
  return false;
}
