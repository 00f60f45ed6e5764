/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for files that machines read. printf takes the decimal point from the process' locale. libc only. */
#ifndef FK_PRINT_H
#define FK_PRINT_H

#include <assert.h>
#include <math.h>
#include <stdio.h>

/* `value` with 0 to 3 decimals and a point, rounded half away from zero. No number and nothing above 10^15 is written:
 * NaN becomes 0, a larger number +-10^15. Returns `to`. */
static inline const char *fk_print_number(char *to, size_t size, double value, int decimals) {
  static const long long steps[] = {1, 10, 100, 1000};
  assert(decimals >= 0 && decimals <= 3);
  const double limited = value != value ? 0 : value > 1e15 ? 1e15 : value < -1e15 ? -1e15 : value;
  const long long scaled = llround(fabs(limited) * (double)steps[decimals]);
  const char *sign = limited < 0 && scaled ? "-" : "";
  if (decimals)
    snprintf(to, size, "%s%lld.%0*lld", sign, scaled / steps[decimals], decimals, scaled % steps[decimals]);
  else
    snprintf(to, size, "%s%lld", sign, scaled);
  return to;
}

#endif
