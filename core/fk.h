/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
/* libfluxkontext: edits images with FLUX.1-Kontext. The only public header.
 *
 *   FkOptions *options = fk_options_new();
 *   fk_options_set(options, "model-path", "FLUX.1-Kontext-dev", &error);
 *   FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
 *   FkSettings *settings = fk_settings_new();
 *   fk_settings_set(settings, "prompt", "make it night", &error);
 *   FkJob job = {.in = ..., .out = ..., .settings = settings};
 *   fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
 *
 * Threads: every function may be called from any thread. An FkEngine may be shared: edits are served one call at a time
 * in order of arrival, and waiting for one's turn can be cancelled. FkOptions and FkSettings are not locked: one thread
 * at a time each.
 * Callbacks and what they are given live for the call: an FkProgress and its user_data, a GCancellable and the settings
 * of a job are not used after the function has returned, and a callback runs on the thread that called it. It may call
 * this library, but neither load nor edit with the engine that is at work: it would wait for itself.
 * Errors: a function with a GError returns false or NULL exactly when it sets it; domain FK_ERROR. The message names
 * the file, tensor, property or size with expected and found value. What each can give:
 *
 *   fk_options_set, fk_settings_set, fk_set, fk_settings_check: OPTION_BAD
 *   fk_engine_output_size: OPTION_BAD, SHAPE
 *   fk_engine_new: OPTION_BAD, MODEL_MISSING, MODEL_DENIED, MODEL_BAD, MODEL_MISMATCH, BACKEND_MISSING, MEMORY
 *   fk_engine_load, fk_engine_load_for: CANCELLED, MEMORY, DEVICE, DEVICE_LOST, OPTION_BAD (settings), and
 *     MODEL_MISSING, MODEL_DENIED, MODEL_BAD for files that have changed since fk_engine_new
 *   fk_engine_open: what these two give
 *   fk_engine_edit, fk_engine_warmup, fk_engine_profile: OPTION_BAD, SHAPE, CANCELLED, MEMORY, NONFINITE, DEVICE,
 *     DEVICE_LOST, and what fk_engine_load gives where the weights are not there yet
 *   fk_manifest, fk_manifest_id: OPTION_BAD (settings), MODEL_MISSING, MODEL_DENIED, MODEL_BAD; fk_manifest_apply:
 *     OPTION_BAD
 *   fk_describe_file: MODEL_MISSING, MODEL_DENIED, MODEL_BAD, MODEL_MISMATCH, BACKEND_MISSING, MEMORY
 *   fk_plan: OPTION_BAD, SHAPE, MODEL_MISSING, MODEL_DENIED, MODEL_BAD, MODEL_MISMATCH, MEMORY
 *
 * Units: pixels, bytes, milliseconds (names end in _ms). */
/* clang-format on */
#ifndef FK_H
#define FK_H

#include "fk-error.h"

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

G_BEGIN_DECLS

/* ---- The table of properties: everything that can be set, once, for the API, the element, presets and documents ----
 */

typedef enum {
  FK_KIND_BOOL,
  FK_KIND_INT,
  FK_KIND_UINT64,
  FK_KIND_DOUBLE,
  FK_KIND_STRING,
  FK_KIND_ENUM,
  FK_KIND_SWITCH /* auto, on, off */
} FkKind;

typedef enum { FK_SCOPE_OPTION, FK_SCOPE_SETTING } FkScope;

/* What an optimization may do to the result: nothing, rounding inside the op tolerance, or a measured loss of quality.
 * FK_CLASS_NONE: not an optimization. */
typedef enum { FK_CLASS_NONE, FK_CLASS_SAME, FK_CLASS_ROUNDING, FK_CLASS_LOSSY } FkClass;

typedef struct {
  const char *name, *nick, *help;
  FkKind kind;
  FkScope scope;
  FkClass optimization;
  double min, max;            /* FK_KIND_INT, DOUBLE; UINT64 has its whole range */
  const char *initial;        /* the default, as fk_*_set takes it; NULL: none (a NULL string) */
  const char *const *values;  /* FK_KIND_ENUM: nicks, NULL-terminated */
  const char *const *meaning; /* FK_KIND_ENUM: one sentence for each */
  bool playing;               /* may change while frames flow */
  bool controllable;          /* may be driven by a GstController */
  /* what `auto` (numbers: the least value) becomes under each preset, in the order of its values; NULL: follows from
   * the rest */
  const char *presets[7];
  bool both;   /* scope FK_SCOPE_SETTING, and an option too: `auto` of options follows from it */
  bool memory; /* a setting: another value needs another memory plan; an option: another engine */
  bool file;   /* names files of this machine: not to be taken from requests of others */
  /* The library's own: the field of the resolved value, and what the backend must be able to do for "on". */
  size_t offset;
  uint32_t needs;
  bool (*check)(const char *text, GError **error); /* FK_KIND_STRING: of a text that is not empty; NULL: any */
} FkProperty;

/* (transfer none): static, in the order in which they are shown. */
FK_API const FkProperty *fk_properties(size_t *count);

/* A pair of settings that cannot be combined. A condition is "=value", "!value" (set to anything else), ">number",
 * "<=number", or "" (not set). */
typedef struct {
  const char *a, *a_when, *b, *b_when, *reason;
} FkInteraction;

/* (transfer none): static. Pairs that are not listed combine. Explicit values that cannot be combined are an error; a
 * preset's choice gives way to an explicit value. */
FK_API const FkInteraction *fk_interactions(size_t *count);

/* ---- Options open an engine; settings belong to one edit ---- */

typedef struct FkOptions FkOptions;
typedef struct FkSettings FkSettings;

FK_API FkOptions *fk_options_new(void); /* (transfer full): all defaults */
FK_API FkOptions *fk_options_copy(const FkOptions *options);
FK_API void fk_options_free(FkOptions *options); /* (nullable) */
/* Longest value of FK_KIND_STRING. */
#define FK_TEXT_BYTES 1048576
/* Unknown names, values out of range, text that is not UTF-8 and text of more than FK_TEXT_BYTES are
 * FK_ERROR_OPTION_BAD; the old value stays. value NULL: the default. Integers are decimal digits, with a minus in front
 * of a negative one; other numbers may have a point and an exponent. */
FK_API bool fk_options_set(FkOptions *options, const char *name, const char *value, GError **error);
/* (transfer none, nullable): valid until the next set. */
FK_API const char *fk_options_get(const FkOptions *options, const char *name);

/* As fk_options_*. Settings may be freed as soon as the call that was given them returns. */
FK_API FkSettings *fk_settings_new(void);
FK_API FkSettings *fk_settings_copy(const FkSettings *settings);
FK_API void fk_settings_free(FkSettings *settings);
FK_API bool fk_settings_set(FkSettings *settings, const char *name, const char *value, GError **error);
FK_API const char *fk_settings_get(const FkSettings *settings, const char *name);
/* What the setting is once the preset has decided it: "28" for steps=0. Where no preset says what `auto` is, and for a
 * name that is no setting's, as fk_settings_get. (transfer none, nullable): until a setting is changed. */
FK_API const char *fk_settings_decided(const FkSettings *settings, const char *name);
/* Sets a property in whichever of the two has it (`both` rows: in both), for callers that take "name=value" of any.
 * options, settings: nullable; its properties are unknown then. */
FK_API bool fk_set(FkOptions *options, FkSettings *settings, const char *name, const char *value, GError **error);
/* May frames with these settings run as one batch: all equal, `seed` aside. */
FK_API bool fk_settings_batchable(const FkSettings *a, const FkSettings *b);
/* Checks everything that does not need an engine: settings that cannot be combined, and a mask that does not fit. */
FK_API bool fk_settings_check(const FkSettings *settings, GError **error);
/* Settings that were set and change nothing beside the others, and one that is not set though the preset is of no use
 * without it: worth a warning, never an error. (transfer full): names
 * in [2i], reasons in [2i+1], NULL-terminated; g_strfreev. */
FK_API char **fk_settings_idle(const FkSettings *settings);

/* ---- Engine ---- */

typedef struct FkEngine FkEngine;

/* One call at the start of each stage ("open", "text", "encode", "step", "decode") and after each unit of it;
 * current counts from 0 to total, in bytes for "open", in evaluations for "step", in frames for "encode" and "decode".
 * `stage` is a literal. Called on the thread that called fk_engine_load or fk_engine_edit, with no lock held; the
 * frames of one edit share its calls. */
typedef void (*FkProgress)(const char *stage, int64_t current, int64_t total, void *user_data);

/* Checks the model's files (headers, configurations, tokenizers) and the backend, without loading weights: fast.
 * Options that come to the same give the engine that exists in this process already: the same files (not the spelling
 * of their path, nor files that are not read), the same backend and device (`auto` and -1 are what they became), and on
 * the CPU the same number of threads. max-vram is no difference: it is a limit that a user sets, and the lowest of all
 * users of an engine holds as long as the engine lives; one that the loaded engine exceeds is refused here. (transfer
 * full) */
FK_API FkEngine *fk_engine_new(const FkOptions *options, GError **error);
/* Loads the weights; returns at once when they are loaded, waits when another thread is loading them. After a failure
 * or cancellation the engine may be loaded again. */
FK_API bool fk_engine_load(FkEngine *engine, GCancellable *cancellable, FkProgress progress, void *user_data,
                           GError **error);
/* The same, refused with FK_ERROR_MEMORY before anything is loaded when one edit with these settings (NULL: defaults)
 * at its full working area would not fit: fk_engine_load asks for the defaults. Where only smaller edits are wanted,
 * give the settings that make them small. */
FK_API bool fk_engine_load_for(FkEngine *engine, const FkSettings *settings, GCancellable *cancellable,
                               FkProgress progress, void *user_data, GError **error);
/* new and load in one. */
FK_API FkEngine *fk_engine_open(const FkOptions *options, GCancellable *cancellable, FkProgress progress,
                                void *user_data, GError **error);
FK_API FkEngine *fk_engine_ref(FkEngine *engine);
FK_API void fk_engine_unref(FkEngine *engine); /* (nullable); the last one frees everything */
FK_API GType fk_engine_get_type(void);         /* boxed */
#define FK_TYPE_ENGINE (fk_engine_get_type())
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkEngine, fk_engine_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkOptions, fk_options_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkSettings, fk_settings_free)

/* Where pixels lie. FK_MEMORY_DEVICE: at addresses of the device that the engine works on, in its primary CUDA context
 * (cudaMalloc of a program that made no context of its own; memory of another context has to be copied first). All work
 * on them is done before the call, and the result is complete when it returns: the library waits for its own. They give
 * the bytes that the same pixels give in host memory. Taken by engines of which fk_engine_device is true, in
 * FkJob.in, .out and .references, and in .mask of a frame that is there too; everything else is FK_ERROR_OPTION_BAD,
 * which names the image. */
typedef enum { FK_MEMORY_HOST, FK_MEMORY_DEVICE } FkMemory;

/* What brings chroma of fewer samples to all pixels (up), and back (down). LINEAR: weights of neighbours by where the
 * samples lie, each direction rounded to the samples' bits; BLOCK: a sample for all of its pixels, and their mean. What
 * libgstvideo does: LINEAR, but of 8-bit I420 and YV12 that are not interlaced BLOCK up, and BLOCK down where both
 * sides are even. */
typedef enum { FK_CHROMA_LINEAR, FK_CHROMA_BLOCK } FkChroma;

/* One of the values of a pixel: of pixel x, y it begins at byte offset + (x >> shift_x) * step of row y >> shift_y of
 * the plane. step 0: there is no such value. */
typedef struct {
  int plane, offset, step, shift_x, shift_y;
} FkSample;

/* Pixels of device memory as video has them: R G B or Y' Cb Cr in any order, in up to 4 planes. sample: R G B or
 * Y' Cb Cr, then alpha; where the image has 3 channels sample[3] may be a byte that is written 255 and not read.
 * R G B has all values for every pixel and 8 bits; Y' Cb Cr has 8 bits, or 9 to 16 in the upper bits of
 * little-endian words of 16, and shift_x, shift_y 0 or 1 of chroma. */
typedef struct {
  uint8_t *data[4];
  size_t stride[4]; /* bytes between rows */
  FkSample sample[4];
  int depth;         /* bits of a value; of 9 and more the lower 16 - depth bits of a word are 0 */
  bool limited;      /* 16..235, and chroma 16..240, of 8 bits */
  bool ycbcr;        /* what follows is of Y' Cb Cr alone */
  double kr, kb;     /* shares of red and blue in Y': 0.299 and 0.114 for BT.601, 0.2126 and 0.0722 for BT.709 */
  FkChroma up, down; /* where chroma has fewer samples */
  bool cosited_x, cosited_y; /* LINEAR: a sample lies on the first of its pixels, else between them */
} FkPlanes;

/* 8-bit interleaved pixels, 3 channels R G B or 4 with alpha last; rows `stride` bytes apart, at least width *
 * channels. Sides from 1 to 65535. The caller owns `data`. */
typedef struct {
  uint8_t *data;
  int width, height, channels;
  size_t stride;
  FkMemory memory;
  const FkPlanes *planes; /* (nullable) only with FK_MEMORY_DEVICE: the pixels, in place of `data` and `stride` */
} FkImage;

/* A PNG or JPEG file, by its content: the values of the file without gamma or colour profile, 8 bits, grey and palettes
 * as R G B, 4 channels where there is transparency, turned as its EXIF orientation says. FK_ERROR_OPTION_BAD, which
 * names it; then *image is empty. (transfer full): fk_image_clear. */
FK_API bool fk_image_read(const char *path, FkImage *image, GError **error);
/* The same of a file in memory. name: for the message. */
FK_API bool fk_image_decode(const char *name, const uint8_t *data, size_t bytes, FkImage *image, GError **error);
/* Frees the pixels of these two; an empty image stays empty. */
FK_API void fk_image_clear(FkImage *image);
/* Writes a file: a regular one is replaced whole or not at all, by renaming, links followed; a character device and a
 * FIFO that is read are written into. FK_ERROR_OPTION_BAD, which names it: anything else is there (a folder, a socket,
 * a block device, a link to nothing), or it cannot be written. */
FK_API bool fk_file_write(const char *path, const void *data, size_t bytes, GError **error);
/* Before the work whose result goes there: whether fk_file_write would refuse this name, or find no folder that it may
 * write. Nothing is made. A FIFO's reader may be a second late; *held is the FIFO then, for the caller to close once
 * the file is written, so that the reader waits that long. -1: there is nothing to close. */
FK_API bool fk_file_check(const char *path, int *held, GError **error);

/* How much of a text one encoder read. All 0: there was no such text. */
typedef struct {
  int tokens;        /* of the whole text, begin and end marks included */
  int read;          /* of these; fewer than `tokens` where the text is longer than the encoder takes */
  size_t read_bytes; /* of the text: from this byte on nothing was read; its length when all was */
} FkTextRead;

/* Bytes of FkResult.region: 256 tokens a side and 4 MP at most. */
#define FK_REGION_TEXT 8224
/* What one edit did. */
typedef struct {
  uint64_t seed;
  int width, height; /* at which the model worked */
  int evaluations;   /* forward passes of the model that the schedule asked for */
  int skipped;       /* of these, answered by a step cache */
  char mask[128];    /* one character for each of the first 127 evaluations: 1 computed, 0 skipped; replayable */
  /* Which tokens (16x16 pixels) region-tokens found edited, replayable as region-mask: "WxH:" and a hexadecimal digit
   * for each four of them, row by row, edited = 1, the first in the highest bit; "" where it is off. Where
   * region-refresh decided again: "v2:", that, and what changed at each later decision (docs/model.md). */
  char region[FK_REGION_TEXT];
  bool prompt_cached;                              /* the text was not encoded again */
  bool truncated;                                  /* any of these four is shorter than its text */
  FkTextRead clip, t5, negative_clip, negative_t5; /* of prompt and, with true CFG, of negative-prompt */
  int unmatched;      /* tensors of the files in `loras` that have no place in the model; fk_engine_active names them */
  double adapters_ms; /* taken to exchange the adapters, before the edit's own time; 0: they were in */
  int64_t saturated;  /* of all frames of the call: numbers that the scales of quantization=fp8-static cut off */
  double flop;        /* spent in this edit */
  double text_ms, encode_ms, denoise_ms, decode_ms, edit_ms;
} FkResult;

/* The running estimate of one result as a small picture: 3 channels, an eighth of the size at which the model works.
 * `evaluation` of `evaluations` have been made. It is a linear map of the latents, fitted to the model's own
 * autoencoder when it is first asked for: colours and shapes, no detail. `image` is valid during the call, which is
 * made on the thread that called fk_engine_edit; see FkProgress for what it may do. */
typedef void (*FkPreview)(int evaluation, int evaluations, const FkImage *image, void *user_data);

#define FK_FRAMES 256   /* most frames of one edit */
#define FK_REFERENCES 8 /* most pictures beside one frame */
typedef struct {
  FkImage in; /* read; for task=generate width, height and channels count and `data` may be NULL */
  /* Written; size as fk_engine_output_size says, channels as `in`. Alpha is resized and passed on, 255 for
   * task=generate. Its pixels may not be those of another image of the call, `in` included. */
  FkImage out;
  const FkSettings *settings; /* unchanged during the call */
  FkResult result;            /* written */
  /* (nullable) What is edited, in place of the settings `mask` and `mask-path`: 1 channel of any size, 255 is edited
   * and 0 kept. It is brought to the frame's size; then the settings of masks hold. Pixels of `out` where it is 0 are
   * those of `in`. */
  const FkImage *mask;
  /* Pictures beside the frame that the prompt may refer to, up to FK_REFERENCES, of 3 or 4 channels (alpha is not read)
   * and any size: each is brought to the model's size nearest to it. The frame comes first, then these in order, then
   * the files of the setting `references`; FK_REFERENCES in all. */
  const FkImage *references;
  int n_references;
  /* (nullable) Called after every preview_every-th evaluation but the last, whose result is `out`; 0: never. Each call
   * waits for the device; the result's bytes are the same with and without. */
  FkPreview preview;
  int preview_every;
  void *preview_data;
} FkJob;

/* Size of the result for an input of this size; exact before load too. */
FK_API bool fk_engine_output_size(FkEngine *engine, const FkSettings *settings, int width, int height, int *out_width,
                                  int *out_height, GError **error);
/* Edits n frames (0 to FK_FRAMES) of one size whose settings are batchable; the bytes of each are those it would have
 * alone. Loads the weights first where they are not. Returns within one step of cancellation. On failure no `out` is to
 * be used; the engine can be used on, unless fk_engine_dead. */
FK_API bool fk_engine_edit(FkEngine *engine, FkJob *jobs, int n, GCancellable *cancellable, FkProgress progress,
                           void *user_data, GError **error);
/* Runs one edit of this size on made-up pixels, so that the first real one is not slower. Sides as fk_engine_edit takes
 * them: from 1 to 65535, with an aspect ratio that can be edited; also of fk_engine_profile and fk_plan. */
FK_API bool fk_engine_warmup(FkEngine *engine, const FkSettings *settings, int width, int height,
                             GCancellable *cancellable, GError **error);
/* Times of one kind of op inside one stage of an edit. m, n, k: sizes of a product or of an attention (queries, keys,
 * head width); 0 where they say nothing. flop and bytes: of all `count` together; bytes: operands read and written
 * once. */
typedef struct {
  const char *stage, *op;
  int64_t m, n, k;
  int count;
  double ms, flop, bytes;
} FkProfileRow;
/* Runs one edit of this size on made-up pixels with every op timed by itself, CUDA graphs off. Ops for which there was
 * no room share one row "dropped". (transfer full): g_free. */
FK_API FkProfileRow *fk_engine_profile(FkEngine *engine, const FkSettings *settings, int width, int height,
                                       size_t *count, GError **error);

/* ---- Layers: what the matrix products of edits see, and what 8 bits would cost each ---- */

/* One matrix of the transformer or of T5; several that read the same rows are one (to_k+to_v+to_q). Its input over all
 * evaluations and frames measured; `peak`s say how far the largest number stands out, and a uniform grid of 8 bits is
 * better than E4M3 where they are below 11.6. The last three are of codes and products as quantization=fp8 makes them,
 * on up to 32 rows of every ninth evaluation. Ratios are NaN where nothing was there to divide by. */
typedef struct {
  char name[160];       /* "transformer_blocks.0.attn.to_k+to_v+to_q" */
  const char *role;     /* as in FkPlanWeights */
  int64_t out, in;      /* of the matrix */
  int64_t evaluations;  /* products */
  int64_t rows;         /* of the input, in all of them */
  double amax, rms;     /* of the input */
  double peak;          /* amax / RMS of a row, the mean over rows */
  double peak_most;     /* of any row */
  double peak_block;    /* of 128 columns of a row, the mean */
  double mean;          /* largest |mean of a column|, in RMS of the input less its columns' means */
  int64_t mean_columns; /* columns whose mean is above 5 of these */
  double saturated;     /* share of codes at the largest E4M3 number: one in each row is */
  double zeros;         /* share of numbers that are not 0 and whose code is */
  double error;         /* |y of codes - y| / |y|, y with its bias */
} FkLayerRow;

typedef struct FkLayers FkLayers;
/* Of an engine without quantisation (FK_ERROR_OPTION_BAD), which it holds. (transfer full) */
FK_API FkLayers *fk_layers_new(FkEngine *engine, GError **error);
FK_API void fk_layers_free(FkLayers *layers); /* (nullable) */
/* fk_engine_edit with its products measured, CUDA graphs off; measurements add up. The bytes of the results are those
 * of fk_engine_edit. FK_ERROR_MEMORY also where weights stream (offload=sequential): they have no place of their own.
 */
FK_API bool fk_layers_edit(FkLayers *layers, FkJob *jobs, int n, GCancellable *cancellable, GError **error);
/* Layers that have been used, in the model's order. (transfer full): g_free */
FK_API FkLayerRow *fk_layers_rows(const FkLayers *layers, size_t *count);
/* The file that quantization=fp8-static takes (calibration-path): JSON with a scale for each matrix of the
 * transformer's blocks, four times what the largest number so far needs, and the model's hash. FK_ERROR_OPTION_BAD: no
 * edit yet; errors of fk_manifest. (transfer full): g_free */
FK_API char *fk_layers_calibration(const FkLayers *layers, GError **error);
/* Where that file is looked for while calibration-path is not set. (transfer full): g_free */
FK_API char *fk_calibration_path(const char *model_path);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkLayers, fk_layers_free)

/* "decided (asked; why)" for what the engine was opened with (backend, precision, device or threads) and for each
 * optimization, in the table's order, as it ran last or would run. (transfer full): names in [2i], texts in [2i+1],
 * NULL-terminated. */
FK_API char **fk_engine_active(FkEngine *engine, const FkSettings *settings);
/* "NVIDIA H200", "cpu (2 threads)"; (transfer none): as long as the engine. */
FK_API const char *fk_engine_machine(FkEngine *engine);
/* One line for people: where the time of opening went (backend, files, plan, weights), of the last exchange of
 * adapters, and of the last reading of weights, by what the calling thread waited for. (transfer full): g_free */
FK_API char *fk_engine_timing(FkEngine *engine);
/* Whether images may be FK_MEMORY_DEVICE, and of which CUDA device; *context: the CUcontext whose addresses they are,
 * not to be destroyed, NULL where the engine runs without one. Both are left alone where it is false. ordinal, context:
 * nullable. */
FK_API bool fk_engine_device(FkEngine *engine, int *ordinal, void **context);
/* True once a device failure has made the process unable to use it. */
FK_API bool fk_engine_dead(FkEngine *engine);

/* ---- Manifest: the record of one edit ---- */

/* JSON text, one object with its keys in a fixed order, of a job that fk_engine_edit has run: SHA-256 of the pixels of
 * input and result (rows without gaps) and of the model's files; every setting and option as it ran; decisions of a
 * step cache; of a packed model ("packed") the files and adapters that it was made of, as its header names them;
 * versions, device, times. What two runs of one job differ in is in "times" alone. Files up to 64 MiB are hashed whole;
 * of larger ones size, first and last MiB and 4 KiB of each MiB between, which tells models and fine-tunes apart and
 * not a change of a few bytes. Once for each engine: two seconds for 34 GB in the page cache. FK_ERROR_MODEL_MISSING,
 * _DENIED, _BAD where the files cannot be read or are not those that were opened. (transfer full): g_free. */
FK_API char *fk_manifest(FkEngine *engine, const FkJob *job, GError **error);
/* The manifest's "id", before or after the edit; of the job only what goes in is read. 64 hexadecimal digits
 * that differ where the result may: by input, settings, model or determinism class (backend, kind of device, version).
 * (transfer full) */
FK_API char *fk_manifest_id(FkEngine *engine, const FkJob *job, GError **error);
/* The manifest's "class": backend, kind of device and version, which equal bytes need in common. Costs nothing.
 * (transfer full) */
FK_API char *fk_engine_class(FkEngine *engine);
/* Sets what a manifest says that ran: its settings, and those options that a result depends on (not devices, threads,
 * limits). Nothing that names a file (FkProperty.file: model-path, loras): a manifest may come from anybody, and
 * whoever applies it says which files are read. options, settings: nullable. FK_ERROR_OPTION_BAD for what is no
 * manifest, or one of a version with settings that this one does not know; some may be set then. */
FK_API bool fk_manifest_apply(const char *json, FkOptions *options, FkSettings *settings, GError **error);

/* ---- Machine: a device without a model ---- */

typedef struct {
  char name[96]; /* as fk_engine_machine */
  size_t free_bytes, total_bytes;
  /* Best rates of this engine there, the bounds of every op: arithmetic of a large matrix product, traffic of the sum
   * of two large arrays. 10^12 a second; 0: not measured. */
  double tflops, tbs;
} FkMachine;

/* Opens a device and closes it again. backend: "cpu", or "cuda" with the option cuda-device-id in `device`. rates: also
 * measures them, which takes up to a second and 1.6 GB of a GPU's memory, 200 MB of a CPU's. FK_ERROR_BACKEND_MISSING
 * where there is no such device, FK_ERROR_MEMORY, FK_ERROR_DEVICE, FK_ERROR_OPTION_BAD for another name. */
FK_API bool fk_machine(const char *backend, int device, bool rates, FkMachine *machine, GError **error);

/* ---- Packed models ---- */

/* Writes what an engine with these options would hold, and the model's small files, as one file that `model-path`
 * takes: it opens at the rate at which it can be read. The model is that of model-path and the other paths, in any form
 * that an engine opens but this one; bytes_per_value: 2 (bfloat16, for CUDA) or 4 (float32, for the CPU). progress:
 * stage "pack", in bytes. A file at `path` is replaced when the new one is whole; "path.part" is what it is called
 * until then. OPTION_BAD (also: cannot be written), MEMORY (also: no room), CANCELLED, and what fk_engine_new and
 * fk_engine_load give for the model. */
FK_API bool fk_pack(const FkOptions *options, int bytes_per_value, const char *path, GCancellable *cancellable,
                    FkProgress progress, void *user_data, GError **error);
/* The same with adapters merged into the weights for good; loras: as the setting of this name, NULL: none. */
FK_API bool fk_pack_adapted(const FkOptions *options, const char *loras, int bytes_per_value, const char *path,
                            GCancellable *cancellable, FkProgress progress, void *user_data, GError **error);

/* ---- Plan: the null walk of one edit ---- */

#define FK_PLAN_STAGES 5
typedef struct {
  const char *stage; /* "clip", "t5", "vae encode", "step", "vae decode" */
  int64_t parameters;
  double weight_bytes, activation_bytes; /* activation: arena peak inside the stage */
  double flop;                           /* of one run of the stage; "step": one evaluation */
} FkPlanStage;

/* Matrices of one role and what they are in memory; the last row: vectors, and tables that are looked up. */
#define FK_PLAN_ROLES 13
typedef struct {
  const char *role, *form; /* "qkv", "e4m3, a scale for each row"; static */
  int64_t parameters;
  double bytes; /* with the gaps of alignment; the rows add up to weight_bytes */
} FkPlanWeights;

typedef struct {
  FkPlanStage stage[FK_PLAN_STAGES];
  FkPlanWeights weights[FK_PLAN_ROLES];
  int width, height; /* at which the model works */
  int64_t text_tokens, target_tokens, context_tokens;
  int evaluations;
  int64_t parameters;
  double weight_bytes, arena_bytes, flop; /* of the whole edit */
  double resident_bytes;                  /* of the weights that offload=model has in memory at a time */
  /* With the options' offload and max-vram: of the weights in memory at a time, and copied from host memory, for one
   * evaluation and once before the first. */
  double placed_bytes, streamed_bytes, streamed_before_bytes;
  const char *offload;        /* "none", "model", "sequential" */
  const char *storage;        /* "expanded", "file" */
  double streamed_text_bytes; /* the same of T5, for one prompt */
  double host_bytes;          /* of copies of weights in host memory */
  int streamed_blocks, blocks;
  double cache_bytes;     /* of the prompt cache */
  double whole_step_flop; /* of one evaluation if the last block computed every row, as the reference does */
} FkPlan;

/* `model` is a folder, or "kontext-dev" or "schnell" for the published configurations without any file. options
 * (nullable: defaults): what changes the weights, such as quantization; the model and the backend are those of the
 * other arguments. bytes_per_value: 2 (bfloat16, CUDA) or 4 (float32, CPU). An engine's own limit (max-vram) counts
 * weight_bytes, cache_bytes and arena_bytes, and what the kernels of its backend hold. */
FK_API bool fk_plan(const char *model, const FkOptions *options, const FkSettings *settings, int width, int height,
                    int bytes_per_value, FkPlan *plan, GError **error);

/* What a file of weights or a part's folder is, as lines for people: for each part of a model in it, whose names its
 * tensors have, their types, the sizes that follow, and the memory that they would take; what does not fit, and what a
 * model of this file needs besides; of adapters their kinds, modules and rank. (transfer full): g_free. NULL:
 * FK_ERROR_MODEL_*, for a file that is no file of weights, or of nothing of these. */
FK_API char *fk_describe_file(const char *path, GError **error);

G_END_DECLS

#endif
