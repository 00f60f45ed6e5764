/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: the edit itself, run on the null backend, which only counts. Of the model's structure only the autoencoder's
 * halves are known here, for their parameters one by one. */
#include "plan.h"

#include "edit.h"
#include "frames.h"
#include "given.h"
#include "packing.h"
#include "placement.h"

#include <string.h>

/* It follows no address of a picture: they are those of the backend that is planned for. */
static FkBackend *null_backend(FkDtype dtype, GError **error) {
  char message[256] = "";
  FkFailure failure;
  FkBackend *be = fk_backend_open("null", 0, 0, &failure, message, sizeof message);
  if (!be)
    g_set_error(error, FK_ERROR, failure == FK_FAIL_MEMORY ? FK_ERROR_MEMORY : FK_ERROR_BACKEND_MISSING,
                "null backend: %s", message);
  if (!be) return NULL;
  be->dtype = dtype;
  be->can &= ~(uint32_t)FK_CAN_DEVICE_IMAGES;
  return be;
}

/* `edit` without pixels, tokenizers and callbacks. */
static bool walk(FkEdit *edit, FkBackend *be, FkArena *arena, bool whole_last_block, GError **error) {
  const FkModel *asked = edit->model;
  FkModel model = *asked;
  model.flux.whole_last_block = whole_last_block;
  model.clip_tokenizer = NULL;
  model.t5_tokenizer = NULL;
  edit->model = &model;
  edit->be = be;
  edit->arena = arena;
  edit->cache = NULL;
  edit->cancellable = NULL;
  edit->bring = NULL;
  edit->progress = NULL;
  edit->dry_run = true;
  const bool ok = fk_arena_open(arena, be, 0) && fk_edit_run(edit, error);
  edit->model = asked;
  return ok;
}

static size_t peak(const FkEdit *e) {
  size_t best = 0;
  for (int i = 0; i < FK_STAGES; i++) best = MAX(best, e->cost[i].peak_bytes);
  return best;
}

/* Peak of a walk with these weights. */
static bool measure(const FkEdit *edit, FkBackend *be, const FkModel *model, size_t *bytes, GError **error) {
  FkEdit copy = *edit;
  FkArena arena;
  g_autofree FkJob *jobs = g_memdup2(edit->jobs, sizeof(FkJob) * (size_t)edit->n);
  copy.jobs = jobs;
  copy.model = model;
  const bool ok = walk(&copy, be, &arena, false, error);
  *bytes = peak(&copy);
  return ok;
}

static bool measure_both(const FkEdit *edit, FkBackend *be, FkWork *work, GError **error) {
  const FkModel *m = edit->model;
  const bool form = m->precision.as_filed;
  if (!measure(edit, be, m, &work->bytes[form], error)) return false;
  work->bytes[!form] = work->bytes[form];
  return !m->other || measure(edit, be, m->other, &work->bytes[!form], error);
}

bool fk_plan_works(const FkEdit *edit, FkWork *work, GError **error) {
  FkBackend *be = null_backend(edit->be->dtype, error);
  if (!be) return false;
  /* The same fused ops and kernels as the backend that will run: they and compositions need scratch. Graphs are no
   * matter of memory, and there are none here. */
  be->real = edit->be;
  be->use = edit->be->use & be->can;
  const bool ok = measure_both(edit, be, work, error);
  fk_backend_close(be);
  return ok;
}

/* CLIP's share of the text stage. */
static bool clip_share(const FkModel *m, FkBackend *be, size_t *bytes, double *flop, GError **error) {
  FkArena arena;
  const int tokens = m->config.clip.max_tokens;
  g_autofree int32_t *ids = g_try_new0(int32_t, (size_t)tokens);
  const double before = fk_job_flop(be);
  if (!ids) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "plan: no memory for %d tokens", tokens);
    return false;
  }
  fk_arena_open(&arena, be, 0);
  ids[tokens - 1] = m->config.clip.vocab - 1;
  fk_clip_encode(&m->clip, be, &arena, ids, tokens, fk_arena_2d(&arena, be->dtype, 1, m->config.clip.width));
  *bytes = arena.peak;
  *flop = fk_job_flop(be) - before;
  return true;
}

/* Parameters of the VAE's encoder: what a binder of it alone would count. */
static int64_t vae_encoder_parameters(const FkModel *m) {
  const FkVaeHalf *h = &m->vae.encoder;
  int64_t n = h->conv_in.out * (h->conv_in.in + 1) + h->conv_out.out * (h->conv_out.in + 1);
  n += fk_tensor_cols(h->norm_out) * 2;
  for (int i = 0; i < h->levels + 1; i++) {
    const FkVaeResnet *list = i < h->levels ? h->resnet[i] : h->mid;
    for (int j = 0; j < (i < h->levels ? h->resnets : 2); j++) {
      const FkVaeResnet *r = &list[j];
      n += 2 * (r->conv1.in / 9 + r->conv1.out) + r->conv1.out * (r->conv1.in + 1) + r->conv2.out * (r->conv2.in + 1);
      if (r->shortcut.out) n += r->shortcut.out * (r->shortcut.in + 1);
    }
    if (i < h->levels && h->resample[i].out) n += h->resample[i].out * (h->resample[i].in + 1);
  }
  const FkVaeAttention *a = &h->attention;
  return n + a->qkv.out * (a->qkv.in + 1) + a->out.out * (a->out.in + 1) + (a->qkv.out ? 2 * a->out.out : 0);
}

/* What each is: flux-bind.c. */
static const char *const role_names[FK_PLAN_ROLES] = {[FK_ROLE_EMBED] = "embedders",
                                                      [FK_ROLE_MODULATION] = "modulation",
                                                      [FK_ROLE_QKV] = "qkv",
                                                      [FK_ROLE_OUT] = "attention out",
                                                      [FK_ROLE_FF_UP] = "mlp up",
                                                      [FK_ROLE_FF_DOWN] = "mlp down",
                                                      [FK_ROLE_SINGLE_IN] = "single in",
                                                      [FK_ROLE_SINGLE_OUT] = "single out",
                                                      [FK_ROLE_FINAL] = "output",
                                                      [FK_ROLE_CLIP] = "clip",
                                                      [FK_ROLE_T5] = "t5",
                                                      [FK_ROLE_CONV] = "vae",
                                                      [FK_ROLES] = "vectors, tables"};
_Static_assert(FK_PLAN_ROLES == FK_ROLES + 1, "a row for each role, and one more");

const char *fk_plan_role(int role) {
  assert(role >= 0 && role < FK_PLAN_ROLES);
  return role_names[role];
}

static const char *form_text(FkForm form, FkDtype plain, double coded) {
  const bool wide = plain == FK_F32;
  if (coded > 0) return wide ? "as the files have it, else float32" : "as the files have it, else bfloat16";
  if (form.dtype == FK_F32) return "float32";
  if (form.dtype == FK_BF16) return "bfloat16";
  assert(form.dtype == FK_E4M3 && form.scale == FK_SCALE_ROW);
  static const char *const roundings[] = {"", " that is a power of two, of mxfp8", " that is a power of two, of mxfp4"};
  g_autofree char *text =
      g_strdup_printf("e4m3, a scale for each row%s%s%s", roundings[form.mx], form.dither ? "; twice" : "",
                      !form.twin ? ""
                      : wide     ? "; and float32"
                                 : "; and bfloat16");
  return g_intern_string(text);
}

static void fill_weights(const FkModel *m, FkDtype plain, FkPlan *p) {
  for (int role = 0; role < FK_PLAN_ROLES; role++) {
    FkPlanWeights *w = &p->weights[role];
    double coded = 0;
    *w = (FkPlanWeights){.role = role_names[role]};
    for (int i = 0; i < FK_PARTS; i++) {
      const FkRoleShare share = fk_binder_share(m->part[i].binder, role);
      w->parameters += share.parameters;
      w->bytes += (double)share.bytes;
      coded += (double)share.coded;
    }
    w->form = role < FK_ROLES   ? form_text(m->precision.form[role], plain, coded)
              : plain == FK_F32 ? "float32"
                                : "float32, tables bfloat16";
  }
}

static bool fill(const FkEdit *e, FkBackend *be, int bytes_per_value, FkPlan *p, GError **error) {
  const FkModel *m = e->model;
  size_t clip_bytes;
  double clip;
  if (!clip_share(m, be, &clip_bytes, &clip, error)) return false;
  const int64_t encoder = vae_encoder_parameters(m), vae = m->part[FK_PART_VAE].parameters;
  const double value = bytes_per_value;
  p->stage[0] = (FkPlanStage){"clip", m->part[FK_PART_CLIP].parameters, (double)m->part[FK_PART_CLIP].bytes,
                              (double)clip_bytes, clip};
  p->stage[1] = (FkPlanStage){"t5", m->part[FK_PART_T5].parameters, (double)m->part[FK_PART_T5].bytes,
                              (double)e->cost[FK_STAGE_TEXT].peak_bytes, e->cost[FK_STAGE_TEXT].flop - clip};
  p->stage[2] = (FkPlanStage){"vae encode", encoder, value * (double)encoder,
                              (double)e->cost[FK_STAGE_ENCODE].peak_bytes, e->cost[FK_STAGE_ENCODE].flop};
  p->stage[3] =
      (FkPlanStage){"step", m->part[FK_PART_FLUX].parameters, (double)m->part[FK_PART_FLUX].bytes,
                    (double)e->cost[FK_STAGE_DENOISE].peak_bytes, e->cost[FK_STAGE_DENOISE].flop / p->evaluations};
  p->stage[4] = (FkPlanStage){"vae decode", vae - encoder, (double)m->part[FK_PART_VAE].bytes - value * (double)encoder,
                              (double)e->cost[FK_STAGE_DECODE].peak_bytes, e->cost[FK_STAGE_DECODE].flop};
  for (int i = 0; i < FK_PARTS; i++) p->parameters += m->part[i].parameters;
  p->weight_bytes = (double)fk_model_weight_bytes(m);
  p->resident_bytes = (double)fk_model_placed_bytes(m, (FkPlacing){.swaps = true});
  p->arena_bytes = (double)peak(e);
  p->flop = e->jobs[0].result.flop;
  return true;
}

/* Walks the edit twice: as it runs, and with the last block on every row. */
static bool walk_both(const FkEdit *start, FkBackend *be, int bytes_per_value, FkPlan *p, GError **error) {
  FkArena arena;
  FkJob job = *start->jobs, whole_job = *start->jobs;
  FkEdit edit = *start, whole = *start;
  edit.jobs = &job;
  whole.jobs = &whole_job;
  if (!walk(&edit, be, &arena, false, error)) return false;
  p->evaluations = job.result.evaluations;
  if (!fill(&edit, be, bytes_per_value, p, error) || !walk(&whole, be, &arena, true, error)) return false;
  p->whole_step_flop = whole.cost[FK_STAGE_DENOISE].flop / p->evaluations;
  return true;
}

static FkModel *open_model(const char *model, const FkLoadPlan *load, FkBackend *be, GError **error) {
  const FkPaths paths = fk_load_paths(load, model);
  return fk_model_open_paths(&paths, be, &load->precision, false, error);
}

/* Bytes of a part that have a slot in the ring. */
static double streamed(const FkModel *m, FkPart part, FkUse use) {
  const FkStore *s = fk_binder_store(m->part[part].binder);
  double bytes = 0;
  for (int i = 0; i < (int)s->groups->len; i++) {
    const FkGroup *g = fk_store_at(s, i);
    if (g->slot >= 0 && g->use == use) bytes += (double)g->bytes;
  }
  return bytes;
}

/* The placement that the options and the work memory come to: the model's from now on. Plans are of a GPU, but those in
 * float32, which are of the CPU. */
static void place(FkModel *m, const FkLoadPlan *load, const FkBackend *be, const FkWork *work, FkPlan *p) {
  FkRoom room = {.host = UINT64_MAX}; /* of another machine */
  for (int i = 0; i < 2; i++) {
    const uint64_t others = (uint64_t)p->cache_bytes + work->bytes[i];
    room.most[i] = !load->max_vram ? UINT64_MAX : load->max_vram > others ? load->max_vram - others : 0;
  }
  const FkPlacing placing = fk_placement_pick(m, load->offload, be->dtype != FK_F32, &room);
  fk_model_place(m, placing);
  p->placed_bytes = (double)fk_model_placed_bytes(m, placing);
  p->offload = placing.level || placing.text_level ? "sequential" : placing.swaps ? "model" : "none";
  p->storage = placing.as_filed && m->has_forms ? "file" : "expanded";
  p->blocks = fk_flux_blocks(&m->flux);
  p->streamed_blocks = MAX(placing.level - 1, 0);
  p->streamed_bytes = streamed(m, FK_PART_FLUX, FK_USE_EACH);
  p->streamed_before_bytes = streamed(m, FK_PART_FLUX, FK_USE_BEFORE);
  p->streamed_text_bytes = streamed(m, FK_PART_T5, FK_USE_EACH);
  p->host_bytes = (double)fk_model_host_bytes(m);
}

/* An edit of this size, and where its weights are. */
static bool plan_edit(FkModel *m, const FkLoadPlan *load, FkBackend *be, FkEdit *edit, int bytes_per_value, FkPlan *p,
                      GError **error) {
  FkWork work;
  p->width = edit->width;
  p->height = edit->height;
  p->cache_bytes = (double)fk_prompt_cache_bytes(m, be);
  p->text_tokens = fk_prompt_length(m, edit->tune->max_sequence_length);
  p->target_tokens = (int64_t)(edit->width / 16) * (edit->height / 16);
  p->context_tokens =
      edit->tune->task == FK_TASK_GENERATE ? 0 : p->target_tokens + fk_flux_reference_tokens(&edit->references);
  if (!measure_both(edit, be, &work, error)) return false;
  place(m, load, be, &work, p);
  fill_weights(m, be->dtype, p);
  return walk_both(edit, be, bytes_per_value, p, error);
}

/* What the settings' adapters need is a part of the weights. *loras: for as long as the model. */
static bool adapt(FkModel *m, const FkSettings *settings, FkLoras **loras, GError **error) {
  const char *list = settings ? fk_settings_get(settings, "loras") : NULL;
  FkBinder *binders[FK_PARTS];
  if (!list || !*list) return true;
  for (int i = 0; i < FK_PARTS; i++) binders[i] = i == FK_PART_VAE ? NULL : m->part[i].binder;
  *loras = fk_loras_open(list, binders, error);
  if (*loras) fk_model_adapt(m, *loras);
  return *loras != NULL;
}

bool fk_plan(const char *model, const FkOptions *options, const FkSettings *settings, int width, int height,
             int bytes_per_value, FkPlan *plan, GError **error) {
  *plan = (FkPlan){0};
  if (bytes_per_value != 2 && bytes_per_value != 4) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "bytes per value: expected 2 or 4, found %d", bytes_per_value);
    return false;
  }
  FkBackend *be = null_backend(bytes_per_value == 4 ? FK_F32 : FK_BF16, error);
  if (!be) return false;
  g_autoptr(FkOptions) own = options ? fk_options_copy(options) : fk_options_new();
  FkLoadPlan load;
  fk_packing_adopt(own, model);
  FkModel *m = fk_load_resolve(own, be, &load, error) ? open_model(model, &load, be, error) : NULL;
  g_autoptr(FkLoras) loras = NULL;
  FkTune tune;
  FkFrameSize size;
  bool ok = m && adapt(m, settings, &loras, error) && fk_tune_resolve(settings, be, &tune, error) &&
            fk_frames_size(m, &tune, width, height, &size, error);
  if (ok) {
    FkJob job = {.in = {NULL, width, height, 3, 0}, .settings = settings};
    FkEdit edit = {.model = m, .tune = &tune, .jobs = &job, .n = 1};
    fk_tune_apply(&tune, be);
    ok = fk_given_foresee(&edit, width, height, &size, error);
    edit.width = size.width;
    edit.height = size.height;
    job.out = (FkImage){NULL, size.out_width, size.out_height, 3, 0};
    ok = ok && plan_edit(m, &load, be, &edit, bytes_per_value, plan, error);
  }
  fk_model_free(m);
  fk_backend_close(be);
  return ok;
}
