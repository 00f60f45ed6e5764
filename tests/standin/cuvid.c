/* SPDX-License-Identifier: Apache-2.0 */
/* A libnvcuvid.so.1 without decoders: upstream's plugin asks for it before it registers cudaupload and cudadownload. */
#define REFUSED(name)                                                                                                  \
  __attribute__((visibility("default"))) int name(void) {                                                              \
    return 801; /* CUDA_ERROR_NOT_SUPPORTED */                                                                         \
  }
REFUSED(cuvidCreateDecoder)
REFUSED(cuvidCreateVideoParser)
REFUSED(cuvidCtxLock)
REFUSED(cuvidCtxLockCreate)
REFUSED(cuvidCtxLockDestroy)
REFUSED(cuvidCtxUnlock)
REFUSED(cuvidDecodePicture)
REFUSED(cuvidDestroyDecoder)
REFUSED(cuvidDestroyVideoParser)
REFUSED(cuvidGetDecoderCaps)
REFUSED(cuvidMapVideoFrame)
REFUSED(cuvidMapVideoFrame64)
REFUSED(cuvidParseVideoData)
REFUSED(cuvidUnmapVideoFrame)
REFUSED(cuvidUnmapVideoFrame64)
