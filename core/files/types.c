/* SPDX-License-Identifier: Apache-2.0 */
/* Types of numbers in files by name and number; see types.h. What their blocks mean is blocks.c. */
#include "types.h"

#include <string.h>

#define ST(name, values, bytes, code)                                                                                  \
  { name, values, bytes, -1, true, false, FK_F32, FK_CODE_##code }
#define PLAIN(name, bytes, ggml)                                                                                       \
  { #name, 1, bytes, ggml, true, true, FK_##name, FK_CODE_##name }
#define GG(name, values, bytes, ggml)                                                                                  \
  { #name, values, bytes, ggml, false, false, FK_F32, FK_CODE_##name }
static const FkNumberType types[] = {
    PLAIN(F32, 4, 0),
    PLAIN(F16, 2, 1),
    PLAIN(BF16, 2, 30),
    ST("F64", 1, 8, NONE),
    ST("I64", 1, 8, NONE),
    ST("I32", 1, 4, NONE),
    ST("I16", 1, 2, NONE),
    ST("I8", 1, 1, I8),
    ST("U64", 1, 8, NONE),
    ST("U32", 1, 4, NONE),
    ST("U16", 1, 2, NONE),
    ST("U8", 1, 1, NONE),
    ST("BOOL", 1, 1, NONE),
    ST("F8_E4M3", 1, 1, E4M3),
    ST("F8_E5M2", 1, 1, E5M2),
    ST("F8_E8M0", 1, 1, NONE),
    ST("F8_E4M3FNUZ", 1, 1, NONE),
    ST("F8_E5M2FNUZ", 1, 1, NONE),
    ST("F4", 2, 1, NONE),
    ST("F6_E2M3", 4, 3, NONE),
    ST("F6_E3M2", 4, 3, NONE),
    ST("C64", 1, 8, NONE),
    GG(Q4_0, 32, 18, 2),
    GG(Q4_1, 32, 20, 3),
    GG(Q5_0, 32, 22, 6),
    GG(Q5_1, 32, 24, 7),
    GG(Q8_0, 32, 34, 8),
    GG(Q2_K, 256, 84, 10),
    GG(Q3_K, 256, 110, 11),
    GG(Q4_K, 256, 144, 12),
    GG(Q5_K, 256, 176, 13),
    GG(Q6_K, 256, 210, 14),
    GG(IQ4_NL, 32, 18, 20),
    GG(IQ4_XS, 256, 136, 23),
};
enum { TYPES = sizeof types / sizeof *types };

const FkNumberType *fk_number_type(int row) {
  return row >= 0 && row < TYPES ? &types[row] : NULL;
}

int fk_number_type_named(const char *name) {
  for (int i = 0; i < TYPES; i++)
    if (types[i].safetensors && !strcmp(name, types[i].name)) return i;
  return -1;
}

int fk_number_type_ggml(uint32_t number) {
  for (int i = 0; i < TYPES; i++)
    if (types[i].ggml >= 0 && number == (uint32_t)types[i].ggml) return i;
  return -1;
}

FkCode fk_number_code(const char *name) {
  for (int i = 0; i < TYPES; i++)
    if (!strcmp(name, types[i].name)) return types[i].code;
  return FK_CODE_NONE;
}

const char *fk_ggml_type_name(uint32_t number) {
  static const char *const names[] = {
      "F32",        "F16",        "Q4_0",       "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
      "Q8_1",       "Q2_K",       "Q3_K",       "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
      "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
      "I64",        "F64",        "IQ1_M",      "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
      "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4"};
  return number < sizeof names / sizeof *names ? names[number] : NULL;
}
