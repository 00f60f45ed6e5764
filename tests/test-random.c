/* SPDX-License-Identifier: Apache-2.0 */
/* Noise against torch: bits for the CPU generator; published H200 values, word order and grid for the CUDA one. */
#include "random.h"

#include <glib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static char *read_golden(const char *name) {
  g_autofree char *path = g_build_filename(FK_TEST_DATA, name, NULL);
  g_autoptr(GError) error = NULL;
  char *text = NULL;
  g_file_get_contents(path, &text, NULL, &error);
  g_assert_no_error(error);
  return text;
}

static uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static void test_cpu_bits(void) {
  g_autofree char *text = read_golden("random.txt");
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  g_autofree float *noise = g_new(float, 262144);
  int cases = 0;
  for (char **line = lines; *line; line++) {
    guint64 seed;
    int n;
    unsigned first, last;
    char digest[65];
    if (sscanf(*line, "cpu %" G_GUINT64_FORMAT " %d %64s %x %x", &seed, &n, digest, &first, &last) != 5) continue;
    fk_noise_normal(noise, n, seed, FK_RNG_TORCH_CPU);
    g_assert_cmphex(bits_of(noise[0]), ==, first);
    g_assert_cmphex(bits_of(noise[n - 1]), ==, last);
    g_autofree char *sum =
        g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)noise, (gsize)n * sizeof(float));
    g_assert_cmpstr(sum, ==, digest);
    cases++;
  }
  g_assert_cmpint(cases, ==, 6 * 15);
}

/* Spec 13.3: first values and sums of randn(4096). */
static void test_cpu_vectors(void) {
  static const struct {
    uint64_t seed;
    float first[4], last;
    double sum, squares;
  } cases[] = {
      {0, {-1.12583983f, -1.1523602f, -0.250578582f, -0.433878809f}, 0.601982117f, -39.4462694, 4041.35175},
      {42, {1.92691529f, 1.48728406f, 0.900717199f, -2.10552096f}, -0.0118428767f, -4.41226103, 4063.34549},
      {618854, {-1.53930259f, 1.53128266f, -1.00542057f, 2.91865373f}, 0.269067436f, 22.1357996, 4208.20537},
  };
  float noise[4096];
  for (gsize c = 0; c < G_N_ELEMENTS(cases); c++) {
    fk_noise_normal(noise, 4096, cases[c].seed, FK_RNG_TORCH_CPU);
    for (int i = 0; i < 4; i++) g_assert_cmpfloat(noise[i], ==, cases[c].first[i]);
    g_assert_cmpfloat(noise[4095], ==, cases[c].last);
    double sum = 0, squares = 0;
    for (int i = 0; i < 4096; i++) {
      sum += (double)noise[i];
      squares += (double)noise[i] * (double)noise[i];
    }
    g_assert_cmpfloat_with_epsilon(sum, cases[c].sum, 1e-5);
    g_assert_cmpfloat_with_epsilon(squares, cases[c].squares, 1e-4);
  }
}

static void test_philox(void) {
  static const struct {
    uint64_t seed, offset, thread;
    uint32_t words[4];
  } cases[] = {
      {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {42, 0, 0, {0x9ceaf053, 0x77f5493b, 0x12bf50ad, 0x5742b3d7}},
      {42, 4, 5, {0x98712bb9, 0xc696c1de, 0x5845cbee, 0x74a6ba17}},
  };
  for (gsize c = 0; c < G_N_ELEMENTS(cases); c++) {
    uint32_t words[4];
    fk_noise_philox(words, cases[c].seed, cases[c].offset, cases[c].thread);
    g_assert_cmpmem(words, sizeof words, cases[c].words, sizeof words);
  }
}

/* Spec 13.3, read from an H200 to nine digits: equal floats. */
static void test_cuda_vectors(void) {
  static const float want[8] = {0.194018796f,  2.161373615f, -0.172050223f, 0.849060118f,
                                -1.924399018f, 0.652985513f, -0.649440825f, -0.817524731f};
  float noise[8];
  fk_noise_normal(noise, 8, 42, FK_RNG_TORCH_CUDA);
  for (int i = 0; i < 8; i++) g_assert_cmphex(bits_of(noise[i]), ==, bits_of(want[i]));
}

/* What double precision can confirm: sin.approx of an angle in 0..2 pi is off by up to 7.1e-7 (the angle in turns is
 * rounded towards zero), times a radius of at most sqrt(-2 ln 2^-33) = 6.8, 4.8e-6 in all. */
#define CUDA_TOLERANCE 4.8e-6

/* Words, element order and grid against NumPy in double. */
static void test_cuda_order(void) {
  g_autofree char *text = read_golden("random.txt");
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  g_autofree float *noise = g_new(float, 1048653);
  guint64 drawn_seed = 1;
  int drawn_n = 0, cases = 0;
  double worst = 0;
  for (char **line = lines; *line; line++) {
    guint64 seed, offset;
    int n, sms, blocks, element;
    double value;
    if (sscanf(*line, "cuda %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %d %d %d %d %lf", &seed, &offset, &n, &sms,
               &blocks, &element, &value) != 7)
      continue;
    if (seed != drawn_seed || n != drawn_n) fk_noise_cuda(noise, n, seed, offset, sms, blocks);
    drawn_seed = seed;
    drawn_n = n;
    worst = fmax(worst, fabs((double)noise[element] - value));
    g_assert_cmpfloat_with_epsilon((double)noise[element], value, CUDA_TOLERANCE);
    cases++;
  }
  g_test_message("largest deviation from double precision %.2e in %d elements", worst, cases);
  g_assert_cmpint(cases, >, 120);
}

/* Every element of a whole latent stays near the exact transform of its own words. */
static void test_cuda_accuracy(void) {
  enum { N = 262144 };
  g_autofree float *noise = g_new(float, N);
  fk_noise_normal(noise, N, 3, FK_RNG_TORCH_CUDA);
  double worst = 0;
  for (int i = 0; i < N; i++) {
    uint32_t words[4];
    fk_noise_philox(words, 3, 0, (uint64_t)i);
    double u = (double)fmaf((float)words[0], 0x1p-32f, 0x1p-33f);
    double v = (double)fmaf((float)words[1], 0x1.921fb6p-30f, 0x1.921fb6p-31f);
    worst = fmax(worst, fabs((double)noise[i] - sqrt(-2 * log(u)) * sin(v)));
  }
  g_test_message("largest deviation from double precision %.2e", worst);
  g_assert_cmpfloat(worst, <, CUDA_TOLERANCE);
}

static void test_cuda_advance(void) {
  g_assert_cmpuint(fk_noise_cuda_advance(0, 132, 8), ==, 0);
  g_assert_cmpuint(fk_noise_cuda_advance(1, 132, 8), ==, 4);
  g_assert_cmpuint(fk_noise_cuda_advance(262144, 132, 8), ==, 4);
  g_assert_cmpuint(fk_noise_cuda_advance(1081344, 132, 8), ==, 4); /* four per thread */
  g_assert_cmpuint(fk_noise_cuda_advance(1081345, 132, 8), ==, 8);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/random/cpu/bits", test_cpu_bits);
  g_test_add_func("/random/cpu/vectors", test_cpu_vectors);
  g_test_add_func("/random/cuda/philox", test_philox);
  g_test_add_func("/random/cuda/vectors", test_cuda_vectors);
  g_test_add_func("/random/cuda/order", test_cuda_order);
  g_test_add_func("/random/cuda/accuracy", test_cuda_accuracy);
  g_test_add_func("/random/cuda/advance", test_cuda_advance);
  return g_test_run();
}
