/* SPDX-License-Identifier: Apache-2.0 */
/* One-instruction wrappers for sm_90a: mbarriers, bulk tensor copies, warpgroup matrix products, register shares,
 * named barriers, clusters. Names follow the instruction. Nothing here knows a kernel, a tile or an op.
 *
 * Shared-memory addresses are 32-bit (fk_smem). Matrix descriptors assume 128-byte swizzled tiles, as a tensor map with
 * CU_TENSOR_MAP_SWIZZLE_128B writes them: rows of 128 bytes, 8 rows an atom of 1024 bytes, base aligned to 1024.
 *
 * FK_WAIT_TRAP: an mbarrier wait that fails eight million times traps instead of hanging the device. */
#ifndef FK_PTX_CUH
#define FK_PTX_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <stdint.h>

/* Unused: a file may have kernels of one architecture alone, and its helpers are then unused in the code for others. */
#define FK_DEVICE [[maybe_unused]] static __device__ __forceinline__

FK_DEVICE uint32_t fk_smem(const void *p) {
  return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- mbarriers -------------------------------------------------------------------------------------------------- */

FK_DEVICE void fk_mbar_init(uint32_t bar, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}

/* After the inits, before any other thread of the cluster or the copy engine uses the barriers. */
FK_DEVICE void fk_fence_mbar_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* One arrival that also announces `bytes` to come from the copy engine. */
FK_DEVICE void fk_mbar_expect(uint32_t bar, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}

FK_DEVICE void fk_mbar_arrive(uint32_t bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

/* Arrives on the same barrier of a block of the cluster, this one included. Orders what wgmma and the copy engine did
 * with the stage, not ordinary stores: a cluster-wide release would cost a memory barrier of the whole device. */
FK_DEVICE void fk_mbar_arrive_cluster(uint32_t bar, uint32_t rank) {
  asm volatile("{\n.reg .b32 remote;\n"
               "mapa.shared::cluster.u32 remote, %0, %1;\n"
               "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(bar),
               "r"(rank)
               : "memory");
}

/* True once the phase of this parity has completed; may sleep a little in hardware before it says no. */
FK_DEVICE bool fk_mbar_try_wait(uint32_t bar, uint32_t parity) {
  uint32_t done;
  asm volatile("{\n.reg .pred p;\n"
               "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
               "selp.b32 %0, 1, 0, p;\n}"
               : "=r"(done)
               : "r"(bar), "r"(parity)
               : "memory");
  return done != 0;
}

/* A barrier fresh from init passes a wait for parity 1: producers start there on their "empty" barriers. */
FK_DEVICE void fk_mbar_wait(uint32_t bar, uint32_t parity) {
#ifdef FK_WAIT_TRAP
  for (uint32_t tries = 0; !fk_mbar_try_wait(bar, parity); tries++) {
    if (tries == 1u << 23) __trap();
  }
#else
  while (!fk_mbar_try_wait(bar, parity)) {
  }
#endif
}

/* A ring position: which stage, and the parity of its "full" barrier. */
template <int Stages> struct FkRing {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == Stages) stage = 0, parity ^= 1;
  }
};

/* ---- named barriers (ids 1..15; 0 is __syncthreads), counts in threads ----------------------------------------- */

FK_DEVICE void fk_bar_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
FK_DEVICE void fk_bar_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- bulk tensor copies (one thread issues; coordinates innermost first) ---------------------------------------- */

/* L2 policies, as the bulk copies take them. */
constexpr uint64_t FK_L2_EVICT_NORMAL = 0x1000000000000000;
constexpr uint64_t FK_L2_EVICT_FIRST = 0x12F0000000000000;
constexpr uint64_t FK_L2_EVICT_LAST = 0x14F0000000000000;

FK_DEVICE void fk_tma_prefetch_map(const CUtensorMap *map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

FK_DEVICE void fk_tma_load_2d(uint32_t to, const CUtensorMap *map, uint32_t bar, int c0, int c1,
                              uint64_t policy = FK_L2_EVICT_NORMAL) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
               "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
               "l"(map), "r"(bar), "r"(c0), "r"(c1), "l"(policy)
               : "memory");
}

FK_DEVICE void fk_tma_load_3d(uint32_t to, const CUtensorMap *map, uint32_t bar, int c0, int c1, int c2,
                              uint64_t policy = FK_L2_EVICT_NORMAL) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
               "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
               "l"(map), "r"(bar), "r"(c0), "r"(c1), "r"(c2), "l"(policy)
               : "memory");
}

/* Five axes: the box picks or reorders rows. */
FK_DEVICE void fk_tma_load_5d(uint32_t to, const CUtensorMap *map, uint32_t bar, int c0, int c1, int c2, int c3, int c4,
                              uint64_t policy = FK_L2_EVICT_NORMAL) {
  asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
               "[%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(to),
               "l"(map), "r"(bar), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "l"(policy)
               : "memory");
}

/* The tile lands at the same offset in every block of `mask`, and each such block's barrier counts the bytes. */
FK_DEVICE void fk_tma_multicast_2d(uint32_t to, const CUtensorMap *map, uint32_t bar, uint16_t mask, int c0, int c1,
                                   uint64_t policy = FK_L2_EVICT_NORMAL) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
               ".L2::cache_hint [%0], [%1, {%4, %5}], [%2], %3, %6;" ::"r"(to),
               "l"(map), "r"(bar), "h"(mask), "r"(c0), "r"(c1), "l"(policy)
               : "memory");
}

FK_DEVICE void fk_tma_multicast_3d(uint32_t to, const CUtensorMap *map, uint32_t bar, uint16_t mask, int c0, int c1,
                                   int c2, uint64_t policy = FK_L2_EVICT_NORMAL) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
               ".L2::cache_hint [%0], [%1, {%4, %5, %6}], [%2], %3, %7;" ::"r"(to),
               "l"(map), "r"(bar), "h"(mask), "r"(c0), "r"(c1), "r"(c2), "l"(policy)
               : "memory");
}

/* Each thread that wrote shared memory with ordinary stores, before the barrier that hands it to wgmma or the copies.
 */
FK_DEVICE void fk_fence_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- warps, warpgroups, clusters -------------------------------------------------------------------------------- */

/* All four warps of a warpgroup; Count a multiple of 8. The kernel needs __launch_bounds__(threads, 1). */
template <int Count> FK_DEVICE void fk_regs_inc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count> FK_DEVICE void fk_regs_dec() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

/* *at of block `rank` of the cluster; `at` is in shared memory. */
FK_DEVICE float fk_cluster_load(const float *at, int rank) {
  float value;
  asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %1, %2;\nld.shared::cluster.f32 %0, [there];\n}"
               : "=f"(value)
               : "r"(fk_smem(at)), "r"(rank)
               : "memory");
  return value;
}

FK_DEVICE uint32_t fk_cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

FK_DEVICE void fk_cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
/* The same where nothing that was written is read behind the wait. */
FK_DEVICE void fk_cluster_arrive_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
FK_DEVICE void fk_cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* Four 8x8 matrices of 16-bit elements from registers to shared memory; lane l gives the address of row l % 8 of l / 8.
 */
FK_DEVICE void fk_stmatrix_x4(uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a), "r"(b), "r"(c),
               "r"(d)
               : "memory");
}

FK_DEVICE float fk_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* Two float32 to bf16, round to nearest even; `low` in the low half. */
FK_DEVICE uint32_t fk_pack_bf16(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

/* ---- what every architecture since sm_80 has: copies of 16 bytes, 16-bit matrices, warp products ----------------- */

/* 16 bytes to shared memory; the part past `bytes` (0..16) is zero and not read. */
FK_DEVICE void fk_cp_async(uint32_t to, const void *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
FK_DEVICE void fk_cp_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int Left> FK_DEVICE void fk_cp_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}
FK_DEVICE void fk_cp_wait_all() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8. */
FK_DEVICE void fk_ldmatrix_x4(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
FK_DEVICE void fk_ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}

/* d[4] += a[4] b[2]: m16n8k16, bf16 x bf16 -> float32, fragments as ldmatrix gives them. */
FK_DEVICE void fk_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* ---- wgmma ------------------------------------------------------------------------------------------------------ */

/* Before the first product of a batch: orders register accesses of this warpgroup with the products to come. */
FK_DEVICE void fk_wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
FK_DEVICE void fk_wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Until at most `Left` committed batches are still running. */
template <int Left> FK_DEVICE void fk_wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}

/* Keeps the compiler from moving uses of accumulators or A registers across a fence or a wait. */
template <int Count> FK_DEVICE void fk_wgmma_hold(float (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int Count> FK_DEVICE void fk_wgmma_hold(uint32_t (&a)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; i++) asm volatile("" : "+r"(a[i])::"memory");
}

/* Descriptor of a 128-byte swizzled tile at a shared address (base aligned to 1024; the k step below adds to it).
 * K-major (rows are M or N, 64 elements of K in a 128-byte row): mn_stride is not used. One k step of 16 bf16 (32
 * bytes):
 *   + FK_DESC_K_STEP; past 64 elements of K go to the next 64-wide half tile.
 * MN-major (rows are K, 64 elements of M or N in a row; bf16 only): mn_stride = bytes from one 64-wide half to the
 * next. One k step of 16 rows: + FK_DESC_MN_STEP. */
constexpr int FK_DESC_K_STEP = 32 >> 4, FK_DESC_MN_STEP = 2048 >> 4;
FK_DEVICE uint64_t fk_desc(uint32_t at, uint32_t mn_stride = 16) {
  return (uint64_t)((at & 0x3FFFF) >> 4) | (uint64_t)(mn_stride >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | 1ull << 62;
}

/* m64nNk16, bf16 x bf16 -> float32. Accumulator d[N/2] of a thread (t in quad, lane/4 = g, warp w of the group):
 *   d[8j/2 + 0..1] = row 16w + g, columns 8j + 2t + 0..1;  d[8j/2 + 2..3] = row 16w + g + 8, same columns.
 * A in registers a[4]: rows g, g+8 (k 2t, 2t+1), then rows g, g+8 (k 2t+8, 2t+9): pairs packed low first.
 * ss: A, B K-major in shared memory (TransB = 1: B MN-major). rs: A in registers. keep = 0 starts from zero.
 * ss_e4m3: m64nNk32, e4m3 x e4m3, both K-major. N: 64, 128, 160, 176, 184, 192, 200, 256. */
template <int N> struct FkWgmma;

#define FK_G0 "%0,%1,%2,%3,%4,%5,%6,%7"
#define FK_G1 "%8,%9,%10,%11,%12,%13,%14,%15"
#define FK_G2 "%16,%17,%18,%19,%20,%21,%22,%23"
#define FK_G3 "%24,%25,%26,%27,%28,%29,%30,%31"
#define FK_G4 "%32,%33,%34,%35,%36,%37,%38,%39"
#define FK_G5 "%40,%41,%42,%43,%44,%45,%46,%47"
#define FK_G6 "%48,%49,%50,%51,%52,%53,%54,%55"
#define FK_G7 "%56,%57,%58,%59,%60,%61,%62,%63"
#define FK_G8 "%64,%65,%66,%67,%68,%69,%70,%71"
#define FK_G9 "%72,%73,%74,%75,%76,%77,%78,%79"
#define FK_G10 "%80,%81,%82,%83,%84,%85,%86,%87"
#define FK_G11 "%88,%89,%90,%91,%92,%93,%94,%95"
#define FK_G12 "%96,%97,%98,%99,%100,%101,%102,%103"
#define FK_G13 "%104,%105,%106,%107,%108,%109,%110,%111"
#define FK_G14 "%112,%113,%114,%115,%116,%117,%118,%119"
#define FK_G15 "%120,%121,%122,%123,%124,%125,%126,%127"

#define FK_LIST_64 FK_G0 "," FK_G1 "," FK_G2 "," FK_G3
#define FK_LIST_80 FK_LIST_64 "," FK_G4
#define FK_LIST_96 FK_LIST_80 "," FK_G5
#define FK_LIST_112 FK_LIST_96 "," FK_G6
#define FK_LIST_128 FK_LIST_112 "," FK_G7
#define FK_LIST_144 FK_LIST_128 "," FK_G8
#define FK_LIST_160 FK_LIST_144 "," FK_G9
#define FK_LIST_176 FK_LIST_160 "," FK_G10
#define FK_LIST_184 FK_LIST_176 ",%88,%89,%90,%91"
#define FK_LIST_192 FK_LIST_176 "," FK_G11
#define FK_LIST_200 FK_LIST_192 ",%96,%97,%98,%99"
#define FK_LIST_256 FK_LIST_192 "," FK_G12 "," FK_G13 "," FK_G14 "," FK_G15

#define FK_D8(i)                                                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]),          \
      "+f"(d[i + 7])
#define FK_REGS_64 FK_D8(0), FK_D8(8), FK_D8(16), FK_D8(24)
#define FK_REGS_80 FK_REGS_64, FK_D8(32)
#define FK_REGS_96 FK_REGS_80, FK_D8(40)
#define FK_REGS_112 FK_REGS_96, FK_D8(48)
#define FK_REGS_128 FK_REGS_112, FK_D8(56)
#define FK_REGS_144 FK_REGS_128, FK_D8(64)
#define FK_REGS_160 FK_REGS_144, FK_D8(72)
#define FK_REGS_176 FK_REGS_160, FK_D8(80)
#define FK_REGS_184 FK_REGS_176, "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91])
#define FK_REGS_192 FK_REGS_176, FK_D8(88)
#define FK_REGS_200 FK_REGS_192, "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99])
#define FK_REGS_256 FK_REGS_192, FK_D8(96), FK_D8(104), FK_D8(112), FK_D8(120)

/* p0..p6: the operand numbers that follow the N/2 accumulators. */
#define FK_WGMMA_DEFINE(N, p0, p1, p2, p3, p4, p5, p6)                                                                 \
  template <> struct FkWgmma<N> {                                                                                      \
    template <int TransB = 0>                                                                                          \
    static __device__ __forceinline__ void ss(float (&d)[N / 2], uint64_t a, uint64_t b, int keep) {                   \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p2 ", 0;\n"                                                   \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" FK_LIST_##N                            \
                   "}, "                                                                                               \
                   "%" #p0 ", %" #p1 ", p, 1, 1, 0, %" #p3 ";\n}"                                                      \
                   : FK_REGS_##N                                                                                       \
                   : "l"(a), "l"(b), "r"(keep), "n"(TransB));                                                          \
    }                                                                                                                  \
    template <int TransB = 0>                                                                                          \
    static __device__ __forceinline__ void rs(float (&d)[N / 2], const uint32_t *a, uint64_t b, int keep) {            \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p5 ", 0;\n"                                                   \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" FK_LIST_##N                            \
                   "}, "                                                                                               \
                   "{%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", p, 1, 1, %" #p6 ";\n}"                         \
                   : FK_REGS_##N                                                                                       \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(TransB));                      \
    }                                                                                                                  \
    static __device__ __forceinline__ void ss_e4m3(float (&d)[N / 2], uint64_t a, uint64_t b, int keep) {              \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p2 ", 0;\n"                                                   \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" FK_LIST_##N "}, "                      \
                                                                                            "%" #p0 ", %" #p1          \
                                                                                            ", p, 1, 1;\n}"            \
                   : FK_REGS_##N                                                                                       \
                   : "l"(a), "l"(b), "r"(keep));                                                                       \
    }                                                                                                                  \
  };

FK_WGMMA_DEFINE(64, 32, 33, 34, 35, 36, 37, 38)
FK_WGMMA_DEFINE(128, 64, 65, 66, 67, 68, 69, 70)
FK_WGMMA_DEFINE(160, 80, 81, 82, 83, 84, 85, 86)
FK_WGMMA_DEFINE(176, 88, 89, 90, 91, 92, 93, 94)
FK_WGMMA_DEFINE(184, 92, 93, 94, 95, 96, 97, 98)
FK_WGMMA_DEFINE(192, 96, 97, 98, 99, 100, 101, 102)
FK_WGMMA_DEFINE(200, 100, 101, 102, 103, 104, 105, 106)
FK_WGMMA_DEFINE(256, 128, 129, 130, 131, 132, 133, 134)

#endif
