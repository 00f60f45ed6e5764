/* SPDX-License-Identifier: Apache-2.0 */
/* A mutation for harnesses of JSON: one number becomes another that is at some limit. libFuzzer's own mutations of
 * bytes seldom leave a file that is JSON, and so seldom get to what the numbers are used for. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

static const char *const numbers[] = {
    "0",   "-1",  "1",   "2",       "3",          "4",          "5",     "7",    "8",    "9",     "12",
    "15",  "16",  "31",  "32",      "33",         "63",         "64",    "65",   "127",  "128",   "255",
    "256", "257", "511", "512",     "513",        "1000",       "1024",  "1025", "4096", "65536", "1000000",
    "0.5", "1.5", "1e2", "1048576", "2147483647", "2147483648", "1e999", "-0.0", "1e-6"};

static gboolean in_number(char c) {
  return g_ascii_isdigit(c) || c == '-' || c == '.' || c == 'e' || c == '+';
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
  srand(seed);
  size_t starts[256], n = 0;
  gboolean quoted = FALSE;
  for (size_t i = 1; i < size && n < G_N_ELEMENTS(starts); i++) {
    quoted ^= data[i] == '"' && data[i - 1] != '\\';
    if (!quoted && in_number((char)data[i]) && strchr(":,[ ", data[i - 1]) && data[i] != 'e') starts[n++] = i;
  }
  if (!n || rand() % 3 == 0) return LLVMFuzzerMutate(data, size, most);
  const char *number = numbers[(size_t)rand() % G_N_ELEMENTS(numbers)];
  size_t at = starts[(size_t)rand() % n], end = at, length = strlen(number);
  while (end < size && in_number((char)data[end])) end++;
  if (size - (end - at) + length > most) return LLVMFuzzerMutate(data, size, most);
  memmove(data + at + length, data + end, size - end);
  memcpy(data + at, number, length);
  return size - (end - at) + length;
}
