/* SPDX-License-Identifier: Apache-2.0 */
/* What FkOps.commit_adapted means, plainly: for backends of tests, and for what a GPU is compared with. Compiled with
 * -ffp-contract=off, as everything here. */
#ifndef FK_ADAPTED_REFERENCE_H
#define FK_ADAPTED_REFERENCE_H

#include "backend.h"
#include "number.h"

static inline float adapted_number(const void *data, FkDtype dtype, int64_t i) {
  if (dtype == FK_F32) return ((const float *)data)[i];
  const uint16_t bits = ((const uint16_t *)data)[i];
  return dtype == FK_BF16 ? fk_bf16_to_f32(bits) : fk_f16_to_f32(bits);
}

/* `to` and `buffer` as in the slot. */
static inline void adapted_reference(void *to, FkDtype as, const void *buffer, const FkAdapted *m) {
  const void *numbers = m->in_place ? to : buffer;
  const float *rights = (const float *)(const void *)((const char *)buffer + fk_adapted_begin(m));
  const float *lefts = rights + fk_adapted_right(m) / sizeof(float);
  for (int64_t i = 0; i < m->rows; i++)
    for (int64_t j = 0; j < m->cols; j++) {
      const float *left = lefts + i * fk_adapted_ranks(m), *right = rights;
      float w = adapted_number(numbers, m->from, i * m->cols + j);
      for (int t = 0; t < m->n; t++) {
        float sum = 0;
        for (int64_t k = 0; j < m->term[t].q && k < m->term[t].rank; k++) sum += left[k] * right[k * m->term[t].q + j];
        if (j < m->term[t].q) w += m->term[t].scale * sum;
        left += m->term[t].rank;
        right += m->term[t].rank * m->term[t].q;
      }
      if (as == FK_F32)
        ((float *)to)[i * m->cols + j] = w;
      else
        ((uint16_t *)to)[i * m->cols + j] = fk_f32_to_bf16(w);
    }
}

#endif
