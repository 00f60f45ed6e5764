/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine has: processor and memory as Linux tells them, devices as an engine would open them. */
#include "doctor.h"

#include <stdio.h>
#include <string.h>

/* What follows "key" and a colon in a file of /proc. (transfer full): NULL where there is none. */
static char *value_of(const char *file, const char *key) {
  g_autofree char *text = NULL;
  if (!g_file_get_contents(file, &text, NULL, NULL)) return NULL;
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  for (char **line = lines; *line; line++) {
    const char *colon = strchr(*line, ':');
    if (!colon || !g_str_has_prefix(*line, key)) continue;
    return g_strstrip(g_strdup(colon + 1));
  }
  return NULL;
}

/* The vector extensions that BLAS libraries choose by, widest first. */
static const char *vectors(void) {
  static const char *const known[][2] = {{"avx512f", "AVX-512"}, {"avx2", "AVX2"}, {"avx", "AVX"}, {"asimd", "NEON"}};
  g_autofree char *x86 = value_of("/proc/cpuinfo", "flags"), *arm = value_of("/proc/cpuinfo", "Features");
  g_auto(GStrv) flags = g_strsplit(x86 ? x86 : arm ? arm : "", " ", -1);
  for (size_t i = 0; i < G_N_ELEMENTS(known); i++)
    if (g_strv_contains((const char *const *)flags, known[i][0])) return known[i][1];
  return "no vector extension known here";
}

static void print_memory(void) {
  g_autofree char *total = value_of("/proc/meminfo", "MemTotal"), *free_now = value_of("/proc/meminfo", "MemAvailable");
  char a[32], b[32];
  if (!total || !free_now) return;
  printf("memory     %s, %s available\n", doctor_bytes(1024 * g_ascii_strtod(total, NULL), a, sizeof a),
         doctor_bytes(1024 * g_ascii_strtod(free_now, NULL), b, sizeof b));
}

static void print_driver(void) {
  g_autofree char *version = value_of("/proc/driver/nvidia/version", "NVRM version");
  printf("driver     %s\n", version ? version : "no NVIDIA driver is loaded");
}

static void print_device(const char *label, const FkMachine *m) {
  char a[32], b[32];
  printf("%-10s %s, %s, %s free", label, m->name, doctor_bytes((double)m->total_bytes, a, sizeof a),
         doctor_bytes((double)m->free_bytes, b, sizeof b));
  if (m->tflops > 0) printf("; reaches %.4g TFLOP/s and %.3g TB/s", m->tflops, m->tbs);
  printf("\n");
}

/* Devices are opened one after the other until there is none. */
static void print_gpus(bool rates) {
  for (int i = 0;; i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *label = g_strdup_printf("cuda %d", i);
    FkMachine m;
    if (fk_machine("cuda", i, rates, &m, &error))
      print_device(label, &m);
    else if (i == 0)
      printf("cuda       not usable: %s\n", error->message);
    else
      return;
    if (error) return;
  }
}

bool doctor_machine(bool rates) {
  g_autofree char *processor = value_of("/proc/cpuinfo", "model name");
  g_autoptr(GError) error = NULL;
  FkMachine m;
  printf("processor  %s, %u threads, %s\n", processor ? processor : "unknown", g_get_num_processors(), vectors());
  print_memory();
  print_driver();
  const bool cpu = fk_machine("cpu", 0, rates, &m, &error);
  if (cpu)
    print_device("cpu", &m);
  else
    printf("cpu        not usable: %s\n", error->message);
  print_gpus(rates);
  return cpu;
}
