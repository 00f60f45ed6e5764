/* SPDX-License-Identifier: Apache-2.0 */
/* See test-header.c. */
#include <fk.h>

#include <cstdio>

int main() {
  size_t n = 0;
  const FkProperty *p = fk_properties(&n);
  FkSettings *settings = fk_settings_new();
  const bool ok = n > 0 && p[0].name && fk_settings_get(settings, "prompt");
  fk_settings_free(settings);
  std::printf("%s 1 /header/cc\n1..1\n", ok ? "ok" : "not ok");
  return ok ? 0 : 1;
}
