/* SPDX-License-Identifier: Apache-2.0 */
/* The cases of test-cuda-ops.c: each row is checked against the CPU and, where it says so, timed at the sizes of the
 * published model. Names are made from the rows. */
#ifndef FK_TEST_CUDA_CASES_H
#define FK_TEST_CUDA_CASES_H

#include "ops.h"

/* Rows that the CPU computes of a case at full size: 64 of 8704 take seconds, all of them an hour. */
enum { SAMPLE = 64 };

/* A product. sample: rows of each group that are compared, 0: all. */
typedef struct {
  const char *name;
  int64_t m[2], n, k; /* m: rows of each group */
  FkEpilogue epilogue;
  FkAct act;
  FkDtype y;
  int64_t width, head, ldx, ldy; /* D and E of the QKV epilogue; 0: dense */
  FkScaleKind codes;             /* x and weights are E4M3 codes, the weights with these scales; NONE: bf16 */
  bool numbers;                  /* beside codes of the weights x is bf16 */
  int sample;
  bool timed;
  int encode, decode; /* how often the autoencoder runs it at 1024 x 1024 */
} LinearCase;

static const LinearCase linear_cases[] = {
    {"plain", {77}, 768, 768, .y = FK_BF16},
    {"plain", {300}, 64, 3072, .y = FK_F32},
    {"one row, float out", {1}, 1536, 256, .y = FK_F32, .ldy = 2048},
    {"28 rows, float out", {28}, 1536, 512, .y = FK_F32},
    {"odd sizes", {37}, 53, 50, .y = FK_BF16},
    {"silu", {130}, 256, 768, .act = FK_ACT_SILU, .y = FK_BF16},
    {"quick-gelu", {77}, 512, 128, .act = FK_ACT_QUICK_GELU, .y = FK_BF16},
    {"gelu, two groups", {96, 517}, 1024, 256, .act = FK_ACT_GELU_TANH, .y = FK_BF16, .ldy = 1792},
    {"gate, two groups", {64, 300}, 256, 1024, FK_EPI_GATE, .y = FK_BF16, .ldx = 1792},
    {"gate, wide", {513}, 512, 1280, FK_EPI_GATE, .y = FK_BF16},
    {"add", {200}, 256, 512, FK_EPI_ADD, .y = FK_BF16},
    {"qkv, two groups", {64, 450}, 768, 256, FK_EPI_QKV, .y = FK_BF16, .width = 256, .head = 128, .ldy = 1792},
    {"qkv and mlp", {514}, 1792, 256, FK_EPI_QKV, .y = FK_BF16, .width = 256, .head = 128},
    {"keys and values", {300}, 768, 256, FK_EPI_QKV, .y = FK_BF16, .width = 256, .head = 128, .ldy = 1024},
    {"qkv, heads of 64", {100}, 384, 128, FK_EPI_QKV, .y = FK_BF16, .width = 128, .head = 64},
    {"modulation", {2}, 18432, 3072, .y = FK_F32, .timed = true},
    {"double block qkv",
     {512, 8192},
     9216,
     3072,
     FK_EPI_QKV,
     .y = FK_BF16,
     .width = 3072,
     .head = 128,
     .sample = SAMPLE,
     .timed = true},
    {"double block out", {512, 8192}, 3072, 3072, FK_EPI_GATE, .y = FK_BF16, .sample = SAMPLE, .timed = true},
    {"feed-forward up",
     {512, 8192},
     12288,
     3072,
     .act = FK_ACT_GELU_TANH,
     .y = FK_BF16,
     .sample = SAMPLE,
     .timed = true},
    {"feed-forward down", {512, 8192}, 3072, 12288, FK_EPI_GATE, .y = FK_BF16, .sample = SAMPLE, .timed = true},
    {"single block in",
     {8704},
     21504,
     3072,
     FK_EPI_QKV,
     .y = FK_BF16,
     .width = 3072,
     .head = 128,
     .sample = SAMPLE,
     .timed = true},
    {"single block out", {8704}, 3072, 15360, FK_EPI_GATE, .y = FK_BF16, .sample = SAMPLE, .timed = true},
    {"codes", {77}, 768, 768, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, float out", {28}, 1536, 512, .y = FK_F32, .ldy = 2048, .codes = FK_SCALE_ROW},
    {"codes, odd sizes", {37}, 53, 50, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, odd and long, float out", {70}, 101, 1231, .y = FK_F32, .codes = FK_SCALE_ROW},
    {"codes, one scale", {130}, 512, 768, .y = FK_BF16, .codes = FK_SCALE_TENSOR},
    {"codes, silu", {130}, 256, 768, .act = FK_ACT_SILU, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, quick-gelu", {77}, 512, 128, .act = FK_ACT_QUICK_GELU, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, gelu, long", {300}, 512, 4608, .act = FK_ACT_GELU_TANH, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, gate, odd, two groups", {61, 5}, 90, 600, FK_EPI_GATE, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, gate, long, two groups", {64, 333}, 512, 5120, FK_EPI_GATE, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, add", {200}, 256, 512, FK_EPI_ADD, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, add, long", {200}, 256, 4352, FK_EPI_ADD, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, keys and values",
     {300},
     768,
     256,
     FK_EPI_QKV,
     .y = FK_BF16,
     .width = 256,
     .head = 128,
     .ldy = 1024,
     .codes = FK_SCALE_ROW},
    {"codes, qkv, heads of 64",
     {100},
     384,
     128,
     FK_EPI_QKV,
     .y = FK_BF16,
     .width = 128,
     .head = 64,
     .codes = FK_SCALE_ROW},
    {"codes, demo qkv",
     {64, 512},
     768,
     256,
     FK_EPI_QKV,
     .y = FK_BF16,
     .width = 256,
     .head = 128,
     .ldx = 1280,
     .ldy = 1792,
     .codes = FK_SCALE_ROW},
    {"codes, demo out", {64, 512}, 256, 256, FK_EPI_GATE, .y = FK_BF16, .ldx = 1280, .codes = FK_SCALE_ROW},
    {"codes, demo up",
     {64, 512},
     1024,
     256,
     .act = FK_ACT_GELU_TANH,
     .y = FK_BF16,
     .ldx = 1280,
     .ldy = 1792,
     .codes = FK_SCALE_ROW},
    {"codes, demo down", {64, 512}, 256, 1024, FK_EPI_GATE, .y = FK_BF16, .ldx = 1280, .codes = FK_SCALE_ROW},
    {"codes, demo single in",
     {576},
     1792,
     256,
     FK_EPI_QKV,
     .y = FK_BF16,
     .width = 256,
     .head = 128,
     .ldx = 1280,
     .codes = FK_SCALE_ROW},
    {"codes, demo single out", {576}, 256, 1280, FK_EPI_GATE, .y = FK_BF16, .codes = FK_SCALE_ROW},
    {"codes, double block qkv",
     {512, 8192},
     9216,
     3072,
     FK_EPI_QKV,
     .y = FK_BF16,
     .width = 3072,
     .head = 128,
     .codes = FK_SCALE_ROW,
     .sample = SAMPLE,
     .timed = true},
    {"codes, double block out",
     {512, 8192},
     3072,
     3072,
     FK_EPI_GATE,
     .y = FK_BF16,
     .codes = FK_SCALE_ROW,
     .sample = SAMPLE,
     .timed = true},
    {"codes, feed-forward up",
     {512, 8192},
     12288,
     3072,
     .act = FK_ACT_GELU_TANH,
     .y = FK_BF16,
     .codes = FK_SCALE_ROW,
     .sample = SAMPLE,
     .timed = true},
    {"codes, feed-forward down",
     {512, 8192},
     3072,
     12288,
     FK_EPI_GATE,
     .y = FK_BF16,
     .codes = FK_SCALE_ROW,
     .sample = SAMPLE,
     .timed = true},
    {"codes, single block in",
     {8704},
     21504,
     3072,
     FK_EPI_QKV,
     .y = FK_BF16,
     .width = 3072,
     .head = 128,
     .codes = FK_SCALE_ROW,
     .sample = SAMPLE,
     .timed = true},
    {"codes, single block out",
     {8704},
     3072,
     15360,
     FK_EPI_GATE,
     .y = FK_BF16,
     .codes = FK_SCALE_ROW,
     .sample = SAMPLE,
     .timed = true},
#define WEIGHTS .codes = FK_SCALE_ROW, .numbers = true
    {"weight codes, one row", {1}, 1536, 256, .y = FK_F32, .ldy = 2048, WEIGHTS},
    {"weight codes", {28}, 1536, 512, .y = FK_F32, WEIGHTS},
    {"weight codes, bf16 out", {9}, 200, 768, .y = FK_BF16, .ldx = 1792, WEIGHTS},
    {"weight codes, many rows", {77}, 768, 3072, .y = FK_F32, WEIGHTS},
    {"weight codes, odd sizes", {37}, 53, 50, .y = FK_F32, WEIGHTS},
    {"weight codes, odd and long", {3}, 101, 1231, .y = FK_BF16, WEIGHTS},
    {"weight codes, a column", {1}, 1, 1, .y = FK_F32, WEIGHTS},
    {"weight codes, one scale", {5}, 64, 128, .y = FK_F32, .codes = FK_SCALE_TENSOR, .numbers = true},
    {"weight codes, silu", {13}, 256, 768, .act = FK_ACT_SILU, .y = FK_BF16, WEIGHTS},
    {"weight codes, gate, two groups", {6, 33}, 96, 320, FK_EPI_GATE, .y = FK_BF16, WEIGHTS},
    {"weight codes, keys and values",
     {40},
     768,
     256,
     FK_EPI_QKV,
     .y = FK_BF16,
     .width = 256,
     .head = 128,
     .ldy = 1024,
     WEIGHTS},
    {"weight codes, modulation of one evaluation", {1}, 18432, 3072, .y = FK_F32, .timed = true, WEIGHTS},
    {"weight codes, modulation", {28}, 18432, 3072, .y = FK_F32, .timed = true, WEIGHTS},
    {"weight codes, modulation", {28}, 9216, 3072, .y = FK_F32, .timed = true, WEIGHTS},
#undef WEIGHTS
    {"modulation of 28", {28}, 18432, 3072, .y = FK_F32, .timed = true},
    {"autoencoder q, k, v",
     {16384},
     1536,
     512,
     .y = FK_BF16,
     .sample = SAMPLE,
     .timed = true,
     .encode = 1,
     .decode = 1},
    {"autoencoder out",
     {16384},
     512,
     512,
     FK_EPI_ADD,
     .y = FK_BF16,
     .sample = SAMPLE,
     .timed = true,
     .encode = 1,
     .decode = 1},
};

/* Which operands of attention become codes. */
typedef enum { OF_NUMBERS, OF_VALUE_CODES, OF_CODES } Coded;

/* packed: q, k, v are columns of one matrix and the result replaces q. general: the basic slot. sharp: factor of the
 * scores. mean: of the values, in their deviations. */
typedef struct {
  int64_t sq, sk, heads, width;
  bool causal, bias, packed, general;
  Coded coded;
  int sample;
  bool timed;
  int encode, decode;
  double sharp, mean;
} AttentionCase;

static const AttentionCase attention_cases[] = {
    {320, 320, 2, 128},
    {577, 577, 2, 128, .packed = true},
    {200, 450, 3, 128, .packed = true},
    {577, 577, 2, 128, .packed = true, .general = true},
    {77, 77, 12, 64, .causal = true},
    {128, 128, 4, 64, .bias = true},
    {1, 1, 2, 64},
    {512, 512, 4, 64, .bias = true, .packed = true},
    {576, 576, 1, 512, .packed = true},
    {256, 256, 1, 128, .packed = true},
    {1, 65, 2, 512},
    {130, 300, 3, 512},
    {128, 128, 1, 512, .packed = true, .general = true},
    {320, 320, 2, 128, .coded = OF_VALUE_CODES},
    {1, 1, 1, 128, .coded = OF_VALUE_CODES},
    {129, 128, 2, 128, .coded = OF_VALUE_CODES},
    {577, 577, 2, 128, .packed = true, .coded = OF_VALUE_CODES},
    {200, 450, 3, 128, .packed = true, .coded = OF_VALUE_CODES},
    {70, 300, 2, 48, .coded = OF_VALUE_CODES},
    {1, 65, 2, 512, .coded = OF_VALUE_CODES},
    {8704, 8704, 24, 128, .packed = true, .coded = OF_VALUE_CODES, .sample = SAMPLE, .timed = true},
    {4608, 8704, 24, 128, .coded = OF_VALUE_CODES, .sample = SAMPLE, .timed = true},
    {2560, 2560, 24, 128, .coded = OF_VALUE_CODES, .sample = SAMPLE, .timed = true},
    {1, 1, 1, 128, .coded = OF_CODES},
    {63, 65, 2, 128, .coded = OF_CODES},
    {65, 63, 2, 128, .coded = OF_CODES},
    {193, 64, 1, 128, .coded = OF_CODES},
    {300, 256, 3, 128, .coded = OF_CODES},
    {300, 777, 3, 128, .coded = OF_CODES},
    {577, 577, 2, 128, .packed = true, .coded = OF_CODES},
    {200, 1100, 2, 128, .packed = true, .coded = OF_CODES, .sharp = 4},
    {64, 1024, 1, 128, .coded = OF_CODES},
    {193, 2113, 2, 128, .coded = OF_CODES},
    {130, 900, 2, 128, .coded = OF_CODES, .sharp = 2, .mean = 3},
    {70, 300, 2, 48, .coded = OF_CODES},
    {9, 1100, 2, 48, .coded = OF_CODES, .sharp = 4, .mean = 1},
    {1, 65, 2, 512, .coded = OF_CODES},
    {512, 8704, 2, 128, .coded = OF_CODES, .mean = 1, .sample = SAMPLE},
    {512, 8704, 2, 128, .coded = OF_CODES, .mean = 3, .sample = SAMPLE},
    {512, 8704, 2, 128, .coded = OF_CODES, .sharp = 3, .mean = 1, .sample = SAMPLE},
    {8704, 8704, 24, 128, .packed = true, .coded = OF_CODES, .sample = SAMPLE, .timed = true},
    {4608, 8704, 24, 128, .coded = OF_CODES, .sample = SAMPLE, .timed = true},
    {2560, 2560, 24, 128, .coded = OF_CODES, .sample = SAMPLE, .timed = true},
    {2560, 2560, 24, 128, .sample = SAMPLE, .timed = true},
    {8704, 8704, 24, 128, .sample = SAMPLE, .timed = true},
    {4096, 4096, 1, 512, .sample = SAMPLE, .timed = true},
    {16384, 16384, 1, 512, .sample = SAMPLE, .timed = true, .encode = 1, .decode = 1},
};

typedef struct {
  FkDtype dtype;
  int64_t rows[2], cols, ld;
  bool modulated;
  int sample;
  bool timed, codes; /* codes: to E4M3 with a scale a row */
  float given;       /* that scale, 0: measured */
} LayerNormCase;

static const LayerNormCase layer_norm_cases[] = {
    {FK_BF16, {100}, 3072, .modulated = true},
    {FK_BF16, {37, 131}, 3072, .modulated = true},
    {FK_BF16, {1500}, 3072, .modulated = true},
    {FK_BF16, {301, 1111}, 3072, 3328, .modulated = true},
    {FK_BF16, {1029, 1}, 3072},
    {FK_BF16, {77}, 768},
    {FK_BF16, {64, 513}, 256, 320, .modulated = true},
    {FK_BF16, {77}, 128},
    {FK_BF16, {9}, 2056},
    {FK_BF16, {5, 6}, 101, .modulated = true},
    {FK_F32, {33}, 256, .modulated = true},
    {FK_BF16, {37, 131}, 3072, .modulated = true, .codes = true},
    {FK_BF16, {301, 1111}, 3072, 3328, .modulated = true, .codes = true},
    {FK_BF16, {1029, 1}, 3072, .codes = true},
    {FK_BF16, {64, 513}, 256, 320, .modulated = true, .codes = true},
    {FK_BF16, {5, 6}, 101, .modulated = true, .codes = true},
    {FK_F32, {33}, 256, .codes = true},
    {FK_BF16, {37, 131}, 3072, .modulated = true, .codes = true, .given = 0.02f},
    {FK_BF16, {301, 1111}, 3072, 3328, .modulated = true, .codes = true, .given = 0.3f},
    {FK_BF16, {64, 513}, 256, 320, .modulated = true, .codes = true, .given = 0.02f},
    {FK_F32, {33}, 101, .codes = true, .given = 0.02f},
    {FK_BF16, {512, 4096}, 3072, .modulated = true, .sample = SAMPLE, .timed = true},
    {FK_BF16, {512, 8192}, 3072, .modulated = true, .sample = SAMPLE, .timed = true},
    {FK_BF16, {512, 65024}, 3072, .modulated = true, .sample = SAMPLE, .timed = true},
    {FK_BF16, {512, 8192}, 3072, .modulated = true, .sample = SAMPLE, .timed = true, .codes = true},
    {FK_BF16, {512, 8192}, 3072, .modulated = true, .sample = SAMPLE, .timed = true, .codes = true, .given = 0.02f},
};

typedef struct {
  FkDtype dtype;
  int64_t rows, heads, width, ld;
} RmsNormCase;

static const RmsNormCase rms_norm_cases[] = {
    {FK_BF16, 512, 1, 4096}, {FK_BF16, 65, 1, 256}, {FK_BF16, 130, 3, 128, 1000},
    {FK_BF16, 50, 2, 64},    {FK_F32, 7, 2, 30},
};

/* Sides of the square maps at which a row is timed, and how often an encode and a decode of 1024 x 1024 run it there.
 */
typedef struct {
  int side, encode, decode;
} Timed;

enum { TIMED = 3 };

typedef struct {
  int64_t h, w, channels;
  bool plain, in_place; /* plain: without silu */
  double mean;
  FkDtype dtype;
  bool composed; /* norm and silu one after the other */
  Timed timed[TIMED];
} GroupNormCase;

static const GroupNormCase group_norm_cases[] = {
    {33, 47, 32, .mean = 0.5, .dtype = FK_BF16},
    {33, 47, 64, .mean = 0.5, .dtype = FK_BF16},
    {33, 47, 128, .mean = 0.5, .dtype = FK_BF16, .timed = {{1024, 4, 6}, {512, 1, 0}}},
    {33, 47, 256, .mean = 0.5, .dtype = FK_BF16, .timed = {{1024, 0, 1}, {512, 3, 5}, {256, 1, 0}}},
    {33, 47, 512, .mean = 0.5, .dtype = FK_BF16, .timed = {{512, 0, 1}, {256, 3, 6}, {128, 9, 10}}},
    {128, 130, 32, .plain = true, .in_place = true, .mean = -4, .dtype = FK_BF16},
    {128, 130, 64, .plain = true, .in_place = true, .mean = -4, .dtype = FK_BF16},
    {128, 130, 128, .plain = true, .in_place = true, .mean = -4, .dtype = FK_BF16},
    {128, 130, 256, .plain = true, .in_place = true, .mean = -4, .dtype = FK_BF16},
    {128, 130, 512, .plain = true, .in_place = true, .mean = -4, .dtype = FK_BF16, .timed = {{128, 1, 1}}},
    {5, 3, 96, .dtype = FK_BF16},
    {16, 16, 64, .dtype = FK_F32},
    {40, 40, 128, .dtype = FK_BF16, .composed = true},
};

/* Checked on a map of h x w; timed where the result has the side of `timed`. */
typedef struct {
  int64_t h, w, in, out;
  int kernel, stride, before, after;
  bool up, residual;
  FkDtype x, y;
  bool composed;
  Timed timed[TIMED];
} ConvCase;

#define SAME 3, 1, 1, 1 /* kernel, stride, padding: results of the map's size */
#define HALF 3, 2, 0, 1
#define POINT 1, 1, 0, 0
#define BF16 .x = FK_BF16, .y = FK_BF16

static const ConvCase conv_cases[] = {
    {40, 56, 3, 128, SAME, BF16, .timed = {{1024, 1, 0}}},
    {19, 23, 16, 512, SAME, BF16, .timed = {{128, 0, 1}}},
    {33, 50, 32, 32, SAME, BF16, .residual = true},
    {33, 50, 32, 64, SAME, BF16},
    {30, 47, 64, 64, SAME, BF16, .residual = true},
    {31, 45, 128, 128, SAME, BF16, .residual = true, .timed = {{1024, 2, 3}}},
    {29, 43, 128, 128, SAME, BF16, .timed = {{1024, 2, 2}}},
    {21, 37, 128, 256, SAME, BF16, .timed = {{512, 1, 0}}},
    {22, 30, 256, 256, SAME, BF16, .timed = {{512, 1, 2}}},
    {22, 30, 256, 256, SAME, BF16, .residual = true, .timed = {{512, 2, 3}}},
    {18, 22, 256, 512, SAME, BF16, .timed = {{256, 1, 0}}},
    {17, 21, 512, 512, SAME, BF16, .timed = {{256, 1, 3}, {128, 4, 5}}},
    {18, 20, 512, 512, SAME, BF16, .residual = true, .timed = {{256, 2, 3}, {128, 4, 5}}},
    {18, 20, 512, 256, SAME, BF16, .timed = {{512, 0, 1}}},
    {22, 28, 256, 128, SAME, BF16, .timed = {{1024, 0, 1}}},
    {17, 33, 256, 256, SAME, BF16, .up = true, .timed = {{1024, 0, 1}}},
    {9, 17, 512, 512, SAME, BF16, .up = true, .timed = {{256, 0, 1}, {512, 0, 1}}},
    {24, 17, 64, 64, SAME, BF16, .up = true},
    {20, 23, 128, 128, SAME, BF16, .up = true, .residual = true},
    {34, 52, 128, 128, HALF, BF16, .timed = {{512, 1, 0}}},
    {20, 38, 256, 256, HALF, BF16, .timed = {{256, 1, 0}}},
    {20, 38, 512, 512, HALF, BF16, .timed = {{128, 1, 0}}},
    {32, 32, 32, 32, HALF, BF16},
    {33, 35, 64, 128, 3, 2, 1, 1, BF16},
    {34, 36, 64, 128, 3, 2, 1, 1, BF16, .residual = true},
    {25, 41, 256, 128, POINT, BF16, .timed = {{1024, 0, 1}}},
    {27, 33, 128, 256, POINT, BF16, .timed = {{512, 1, 0}}},
    {27, 33, 256, 512, POINT, BF16, .timed = {{256, 1, 0}}},
    {25, 41, 512, 256, POINT, BF16, .timed = {{512, 0, 1}}},
    {25, 41, 512, 256, POINT, BF16, .residual = true},
    {29, 31, 32, 64, POINT, BF16},
    {40, 40, 128, 3, SAME, BF16, .timed = {{1024, 0, 1}}},
    {16, 16, 512, 32, SAME, BF16, .timed = {{128, 1, 0}}},
    {23, 29, 96, 40, SAME, BF16, .residual = true},
    {23, 29, 13, 7, SAME, BF16, .up = true, .residual = true},
    {1, 1, 64, 64, SAME, BF16},
    {35, 50, 32, 3, SAME, BF16},
    {9, 17, 160, 2, SAME, BF16},
    {35, 21, 2, 40, SAME, BF16},
    {64, 130, 3, 256, SAME, BF16},
    {96, 112, 64, 128, SAME, BF16, .residual = true},
    {50, 90, 64, 256, SAME, BF16, .residual = true},
    {17, 33, 256, 256, SAME, BF16, .up = true, .composed = true},
    {24, 17, 64, 64, SAME, BF16, .up = true, .composed = true},
    {20, 23, 128, 128, SAME, BF16, .up = true, .residual = true, .composed = true},
    {34, 52, 128, 128, HALF, BF16, .composed = true},
    {40, 56, 3, 128, SAME, .x = FK_F32, .y = FK_BF16},
    {40, 40, 128, 3, SAME, .x = FK_BF16, .y = FK_F32},
    {31, 45, 128, 128, SAME, .x = FK_F32, .y = FK_BF16, .residual = true},
};

/* A scale covers height rows and width columns; width 0: a row. */
typedef struct {
  FkDtype codes, x;
  int64_t rows, cols, ldx, ldy, height, width;
  int sample;
  bool timed;
  float given; /* 0: measured */
} QuantizeCase;

static const QuantizeCase quantize_cases[] = {
    {FK_E4M3, FK_BF16, 33, 640, 648},
    {FK_E4M3, FK_BF16, 300, 3072, .ldy = 15360},
    {FK_E4M3, FK_BF16, 65, 12288, 21504},
    {FK_E4M3, FK_BF16, 40, 15360, 21504},
    {FK_E4M3, FK_BF16, 7, 24576},
    {FK_E4M3, FK_BF16, 3, 30720},
    {FK_E4M3, FK_BF16, 1, 16},
    {FK_E4M3, FK_BF16, 20, 24},
    {FK_E4M3, FK_BF16, 37, 101, 103, 107},
    {FK_E4M3, FK_F32, 130, 256, 300},
    {FK_E4M3, FK_F32, 9, 3},
    {FK_I8, FK_BF16, 130, 256},
    {FK_I8, FK_F32, 12, 100},
    {FK_E4M3, FK_BF16, 50, 512, .height = 1, .width = 128},
    {FK_E4M3, FK_BF16, 300, 384, 400, .height = 128, .width = 64},
    {FK_I8, FK_BF16, 300, 384, .height = 128, .width = 128},
    {FK_I8, FK_F32, 70, 256, .height = 1, .width = 128},
    {FK_E4M3, FK_BF16, 33, 640, 648, .given = 0.01f},
    {FK_E4M3, FK_BF16, 300, 3072, .ldy = 15360, .given = 0.3f},
    {FK_E4M3, FK_BF16, 37, 101, 103, 107, .given = 0.01f},
    {FK_E4M3, FK_BF16, 20, 24, .given = 3e-20f},
    {FK_E4M3, FK_F32, 130, 256, 300, .given = 0.01f},
    {FK_E4M3, FK_BF16, 50, 512, .height = 1, .width = 128, .given = 0.004f},
    {FK_E4M3, FK_F32, 300, 384, 400, .height = 128, .width = 64, .given = 0x1p-6f},
    {FK_E4M3, FK_BF16, 8704, 15360, 21504, .sample = SAMPLE, .timed = true, .given = 0.02f},
    {FK_E4M3, FK_BF16, 8704, 3072, 9216, 15360, .sample = SAMPLE, .timed = true},
    {FK_E4M3, FK_BF16, 8704, 12288, 21504, 15360, .sample = SAMPLE, .timed = true},
    {FK_E4M3, FK_BF16, 8704, 15360, 21504, .sample = SAMPLE, .timed = true},
};

/* y = x, into the first columns of rows that are ld elements apart; or y += gate x. */
typedef struct {
  int64_t rows, cols, ld;
  bool gate;
} MoveCase;

static const MoveCase move_cases[] = {{65536, 3072}, {4096, 6144, 21504}, {8704, 3072, .gate = true}};

#undef SAME
#undef HALF
#undef POINT
#undef BF16

#endif
