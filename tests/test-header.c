/* SPDX-License-Identifier: Apache-2.0 */
/* fk.h compiles alone, as C and (test-header.cc) as C++, without a warning; and the library exports what it names. */
#include <fk.h>

#include <stdio.h>

int main(void) {
  size_t n = 0;
  const FkProperty *p = fk_properties(&n);
  FkSettings *settings = fk_settings_new();
  const bool ok = n > 0 && p[0].name && fk_settings_get(settings, "prompt");
  fk_settings_free(settings);
  printf("%s 1 /header/c\n1..1\n", ok ? "ok" : "not ok");
  return ok ? 0 : 1;
}
