/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint folder as one object: configurations, tokenizers, the four networks and their weights. */
#ifndef FK_MODEL_H
#define FK_MODEL_H

#include "checkpoint.h"
#include "clip.h"
#include "flux.h"
#include "lora.h"
#include "t5.h"
#include "tokenizer.h"
#include "vae.h"

#include <gio/gio.h>

typedef struct {
  FkComponent *component; /* NULL: null walk, or of a packed file */
  FkBinder *binder;       /* of all tensors of the part by name; owns their memory */
  int64_t parameters;
  size_t bytes;
  bool loaded;
} FkModelPart;

/* Which weights are in memory at a time, and how. */
typedef struct {
  bool swaps;       /* text encoders, or transformer and autoencoder; else all parts */
  int level, slots; /* of the transformer's groups (fk_store_stream); level 0: all stay */
  int text_level;   /* of T5's, in FK_TEXT_SLOTS */
  bool as_filed;    /* matrices stay as their files have them (FkPrecision.as_filed) */
  bool remakes;     /* codes that the loader makes are made at each return, not kept in host memory */
} FkPlacing;
#define FK_TEXT_SLOTS 3

/* What adapters.c has made of the weights. */
typedef struct {
  char *identity;              /* of the list (fk_loras_identity); NULL: none yet */
  FkLoras *loras;              /* NULL: none */
  double files_ms;             /* taken by opening and checking the list's files, the last time */
  GHashTable *stale[FK_PARTS]; /* canonical names whose weights in memory may be others'; NULL: none */
} FkAdapters;

typedef struct FkModel {
  FkPack *pack;     /* NULL: not of a packed file, or a null walk */
  bool packed;      /* of such a file */
  char *path;       /* NULL: a published configuration without files */
  char *tokenizers; /* the folder that they are in; NULL: none, or inside the packed file */
  FkConfig config;
  FkBackend *be; /* (transfer none) */
  FkClipTokenizer *clip_tokenizer;
  FkT5Tokenizer *t5_tokenizer;
  FkClip clip;
  FkT5 t5;
  FkFlux flux;
  FkVae vae;
  FkNames names;
  FkModelPart part[FK_PARTS];
  bool swaps, remakes; /* FkPlacing */
  bool loaded;         /* all parts are, or with `swaps` those of one of the two */
  FkAdapters adapters;
  FkPrecision precision;
  bool has_forms;               /* as_filed, some matrix takes fewer bytes */
  bool forms_only;              /* binders take no more than forms from files: a null walk */
  FkComponent *forms[FK_PARTS]; /* owned, of a null walk */
  GHashTable *deltas[FK_PARTS]; /* of the binders (fk_binder_adapt). (transfer none) */
  GHashTable *apart[FK_PARTS];  /* names of fk_binder_expand: adapters change them by more than terms; NULL: none */
  uint32_t exchanges;           /* of what ops read of adapters and where: recordings of before are of others */
  struct FkModel *other; /* the same with precision.as_filed the other way, for its sizes; NULL: they are equal, or
                            it is not either */
} FkModel;

/* Reads configurations, tokenizers and all tensor headers of `path`, and checks every tensor's name, type and shape.
 * path "kontext-dev" or "schnell" where no such folder exists: the published configuration for null walks; with ":Q4_K"
 * behind it as if files had their matrices in this type.
 * precision: forms of the matrices by role, NULL: the backend's dtype (fk_binder_new). with_files false: headers of
 * weight files and tokenizers are not opened (plan of a folder), but those that say in which forms matrices could stay.
 */
FkModel *fk_model_open(const char *path, FkBackend *be, const FkPrecision *precision, bool with_files, GError **error);
/* The same of a model whose parts are in several places. */
FkModel *fk_model_open_paths(const FkPaths *paths, FkBackend *be, const FkPrecision *precision, bool with_files,
                             GError **error);
/* The two steps of that: what files say, which needs no backend, and what it comes to on one. */
FkModel *fk_model_read(const FkPaths *paths, GError **error);
bool fk_model_begin(FkModel *model, FkBackend *be, const FkPrecision *precision, GError **error);
/* A part's network with its configuration, asked for in the part's files, where it has any. For fk_model_begin, and for
 * who wants to know what files are. */
bool fk_model_bind(FkModel *model, FkPart part, const FkPrecision *precision, GError **error);
/* (nullable) Frees weights; the backend must still be open. */
void fk_model_free(FkModel *model);
/* Loads all parts that are not loaded. FK_ERROR_MEMORY before the first byte where the backend has too little for all
 * of them; other errors as fk_binder_load. After a failure or cancellation nothing is kept and it may be called again.
 */
bool fk_model_load(FkModel *model, GCancellable *cancellable, FkLoadProgress progress, void *user_data, GError **error);
/* One part alone; nothing happens where it is loaded. Progress counts this part's bytes. After a failure the part is
 * not loaded, the others stay as they are. */
bool fk_model_load_part(FkModel *model, FkPart part, GCancellable *cancellable, FkLoadProgress progress,
                        void *user_data, GError **error);
/* With `swaps`: the text encoders, or else what follows them, after the others have left; of a part that the loader
 * makes codes for a copy stays in host memory, where that is not the device's. Errors as fk_model_load_part;
 * the caller as of fk_model_release_part. */
bool fk_model_bring(FkModel *model, bool text, GCancellable *cancellable, GError **error);
/* Gives a part's memory back, if it is loaded. The caller has waited for what used it, and forgets what was captured
 * with its addresses: the next load may find others (fk_binder_release). */
void fk_model_release_part(FkModel *model, FkPart part);
/* SHA-256 of what is where in memory and in which form: a packed model fits no other. (transfer full) */
char *fk_model_layout(const FkModel *model);
/* Of what fk_model_load loads. */
size_t fk_model_open_bytes(const FkModel *model);
/* The present one, and another: parts that it moves or that have another form give their memory back. The caller as of
 * fk_model_release_part. */
FkPlacing fk_model_placing(const FkModel *model);
void fk_model_place(FkModel *model, FkPlacing placing);
/* What the parts load from now on has these adapters (NULL: none; transfer none, until the next call). Matrices that
 * would stay as their files have them do so where terms are all that is added to them (fk_binder_adapt); where that
 * makes others of them, the part is bound anew and gives its memory back. The caller as of fk_model_release_part. */
void fk_model_adapt(FkModel *model, const FkLoras *loras);
/* What of adapters is not there of parts that are (fk_binder_load_operands); and the bytes of that. */
bool fk_model_load_operands(FkModel *model, GCancellable *cancellable, GError **error);
size_t fk_model_missing_operands(const FkModel *model);
/* Tensors that adapters change when they are expanded. */
int fk_model_changed(const FkModel *model);
/* From now on, so that FkWeights keep their places: who holds them looks at what ops use. FK_ERROR_OPTION_BAD: matrices
 * are as their files have them. */
bool fk_model_stay_expanded(FkModel *model, GError **error);
/* Most bytes of the weights that are in memory at a time. */
size_t fk_model_placed_bytes(const FkModel *model, FkPlacing placing);
/* Of copies of weights in host memory: with the present placing, with another, and of those that are there now. */
size_t fk_model_host_bytes(const FkModel *model);
size_t fk_model_placed_host_bytes(const FkModel *model, FkPlacing placing);
size_t fk_model_pinned_bytes(const FkModel *model);
/* Whether some are of codes that the loader makes. */
bool fk_model_keeps(const FkModel *model);
/* Of the parts that are in memory now. */
size_t fk_model_held_bytes(const FkModel *model);
/* Of all parts, loaded or not, with what they need of adapters: known as soon as the model is open. */
size_t fk_model_weight_bytes(const FkModel *model);
/* Square of the autoencoder's training size: the area at which the model works by default. */
int64_t fk_model_area(const FkModel *model);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkModel, fk_model_free)

#endif
