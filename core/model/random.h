/* SPDX-License-Identifier: Apache-2.0 */
/* Normal noise with the bits of torch.randn, computed on the host (spec 9). libc and libm only.
 *
 * Draws are float32; where latents are bfloat16 the caller rounds them (spec 9.4, rule C). Nothing here keeps state:
 * one call is one fresh generator, as the pipeline makes one draw per image. Must be compiled with -ffp-contract=off.
 */
#ifndef FK_RANDOM_H
#define FK_RANDOM_H

#include <stdint.h>

typedef enum { FK_RNG_TORCH_CPU, FK_RNG_TORCH_CUDA, FK_RNGS } FkRng;

/* Grid limits of the device whose CUDA stream FK_RNG_TORCH_CUDA repeats: H200 and H100 SXM, 132 multiprocessors
 * times 8 blocks of 256 threads. They matter only for n > 132 * 8 * 256 = 270,336. */
#define FK_NOISE_CUDA_SMS 132
#define FK_NOISE_CUDA_BLOCKS_PER_SM 8

/* out [n] = torch.randn(n, generator=Generator(device).manual_seed(seed)), contiguous, float32.
 * torch-cpu: the bits of x86-64 wheels on AVX2 machines, on any machine. torch-cuda: fk_noise_cuda with offset 0. */
void fk_noise_normal(float *out, int64_t n, uint64_t seed, FkRng rng);

/* out [n] as a CUDA device with `sms` multiprocessors and `blocks_per_sm` resident blocks of 256 threads draws it;
 * `offset` is the generator's offset, a multiple of 4 (a call of n elements advances it by fk_noise_cuda_advance). */
void fk_noise_cuda(float *out, int64_t n, uint64_t seed, uint64_t offset, int sms, int blocks_per_sm);
uint64_t fk_noise_cuda_advance(int64_t n, int sms, int blocks_per_sm);

/* The four words of Philox4x32-10 of one thread at one offset (spec 9.6). */
void fk_noise_philox(uint32_t words[4], uint64_t seed, uint64_t offset, uint64_t thread);

#endif
