/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the bulk tensor copies: makes the CUtensorMap of a strided view. The driver's encoder is found through
 * the runtime when the device is opened, so nothing links libcuda. Which box and which axes a kernel wants is the
 * launcher's business. */
#ifndef FK_TENSORMAP_CUH
#define FK_TENSORMAP_CUH

#include <cuda.h>

#include "module.cuh"

typedef CUresult (*FkTensorMapEncode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                      const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                      CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* A 128-byte swizzled map: dims and box innermost first (elements), strides of axes 1..rank-1 in bytes (multiples of
 * 16), base 16-byte aligned, box[0] * element size <= 128. Elements outside read as zero and are not written. fetch:
 * bytes that L2 takes from memory at a time. cudaErrorNotSupported: the driver has no encoder or refuses the view. */
static inline cudaError_t fk_tensor_map(const FkCuda *cu, CUtensorMap *map, CUtensorMapDataType type, const void *base,
                                        int rank, const cuuint64_t *dims, const cuuint64_t *strides,
                                        const cuuint32_t *box,
                                        CUtensorMapL2promotion fetch = CU_TENSOR_MAP_L2_PROMOTION_L2_256B) {
  const FkTensorMapEncode encode = (FkTensorMapEncode)cu->encode_map;
  const cuuint32_t ones[5] = {1, 1, 1, 1, 1};
  if (!encode) return cudaErrorNotSupported;
  const CUresult result =
      encode(map, type, (cuuint32_t)rank, (void *)base, dims, strides, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, fetch, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorNotSupported;
}

/* bf16 heads side by side as [64 columns, rows, pieces]: columns 0..64*pieces of a buffer with `ld` elements a row. */
static inline cudaError_t fk_tensor_map_heads(const FkCuda *cu, CUtensorMap *map, const void *base, int64_t ld,
                                              int rows, int pieces, int box_rows, int box_pieces) {
  const cuuint64_t dims[3] = {64, (cuuint64_t)rows, (cuuint64_t)pieces}, strides[2] = {(cuuint64_t)ld * 2, 128};
  const cuuint32_t box[3] = {64, (cuuint32_t)box_rows, (cuuint32_t)box_pieces};
  return fk_tensor_map(cu, map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, base, 3, dims, strides, box);
}

#endif
