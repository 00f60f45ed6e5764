/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext: tells which tool does what, and starts it: `fluxkontext batch ...` is `fluxkontext-batch ...`. */
#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char name[] = "fluxkontext";

/* In the order in which a user meets them; shown are those that are installed beside this program. */
static const char *const tools[][2] = {
    {"edit-image", "edits one picture"},
    {"batch", "edits folders and lists of pictures, on all GPUs; can be resumed"},
    {"verify", "repeats edits from their records and tells what differs"},
    {"server", "edits over HTTP: OpenAI's interface, jobs with progress, a web page"},
    {"worker", "takes edits from a queue, for many machines"},
    {"doctor", "reports on machine and model; what an edit costs"},
    {"pack", "makes one file of a model, which opens as fast as it can be read"},
    {"calibrate", "makes the scales of quantization=fp8-static from edits of your pictures"},
    {"bench", "times edits, their ops, and what each optimization gains"},
    {"quality", "measures what settings cost in quality"}};

/* Where this program is; else where PATH finds the others. (transfer full, nullable) */
static char *path_of(const char *tool) {
  g_autofree char *self = g_file_read_link("/proc/self/exe", NULL), *file = g_strconcat(name, "-", tool, NULL);
  g_autofree char *folder = self ? g_path_get_dirname(self) : NULL,
                  *beside = folder ? g_build_filename(folder, file, NULL) : NULL;
  if (beside && g_file_test(beside, G_FILE_TEST_IS_EXECUTABLE)) return g_steal_pointer(&beside);
  return g_find_program_in_path(file);
}

static void list_tools(void) {
  printf("  fluxkontext batch -m MODEL -p \"make it night\" -o night photos/\n"
         "Edits images with FLUX.1-Kontext. `fluxkontext TOOL --help` tells more:\n\n");
  for (size_t i = 0; i < G_N_ELEMENTS(tools); i++) {
    g_autofree char *path = path_of(tools[i][0]);
    if (path) printf("  %-12s %s\n", tools[i][0], tools[i][1]);
  }
  printf("\nIn GStreamer: ... ! fluxkontextedit model-path=MODEL prompt=TEXT ! ...\n"
         "Exit: that of the tool; 0 after this list, 2 for a tool that is not there.\n");
}

int main(int argc, char **argv) {
  const char *tool = argc > 1 ? argv[1] : "--help";
  if (!strcmp(tool, "--version")) {
    printf("%s %s\n", name, FK_VERSION);
    return tool_end(name, 0);
  }
  if (!strcmp(tool, "--help") || !strcmp(tool, "-h")) {
    list_tools();
    return tool_end(name, 0);
  }
  g_autofree char *path = strchr(tool, '/') ? NULL : path_of(tool);
  if (path) {
    argv[1] = path;
    execv(path, argv + 1);
  }
  fprintf(stderr, "%s: %s: %s; see --help\n", name, tool, path ? g_strerror(errno) : "no such tool");
  return 2;
}
