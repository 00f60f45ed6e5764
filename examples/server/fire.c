/* SPDX-License-Identifier: Apache-2.0 */
/* POST /inference and GET /benchmark, with the names that Flux-fire gave them. */
#include "api.h"
#include "edits.h"

#include <string.h>

/* A switch of a request and what answers for it in job->active. */
static const struct {
  const char *field, *shown, *property, *on, *off;
} switches[] = {{"use_flash_attention", "flash_attention", "flash-attention", "on", "off"},
                {"use_cuda_graphs", "cuda_graphs", "cuda-graph", "on", "off"},
                {"use_dpm_solver", "dpm_solver", "scheduler", "dpmpp-2m", "euler"}};

static bool read_switches(const Server *server, Form *form, Ask *ask, Failure *f) {
  for (guint i = 0; i < G_N_ELEMENTS(switches); i++) {
    bool on = false;
    if (!form_take(form, switches[i].field)) continue;
    if (!form_bool(form, switches[i].field, &on, f) ||
        !ask_set(ask, switches[i].property, on ? switches[i].on : switches[i].off, f))
      return false;
  }
  const char *quantization = fk_options_get(server->options[0], "quantization");
  const bool have = g_str_has_prefix(quantization, "mxfp4");
  bool want = have;
  if (!form_bool(form, "use_mxfp4", &want, f)) return false;
  if (want == have) return true;
  return fail(f, 400, "unsupported", "use_mxfp4",
              "use_mxfp4=%s: weights are not exchanged between requests, and the model was opened with quantization=%s",
              want ? "true" : "false", quantization);
}

static bool read_number(Form *form, Ask *ask, const char *field, const char *property, double max, Failure *f) {
  const char *text = form_text(form, field, NULL, f);
  char *end;
  if (!text) return !f->status;
  const double value = g_ascii_strtod(text, &end);
  if (end == text || *end || !(value >= 0 && value <= max))
    return fail(f, 400, "invalid_value", field, "%s: \"%.100s\" is not a number from 0 to %g", field, text, max);
  /* Below 1 there is no guidance either. */
  return ask_set(ask, property, !strcmp(property, "true-cfg-scale") && value < 1 ? "1" : text, f);
}

static bool read_form(Exchange *x, Form *form, Ask *ask, Failure *f) {
  int width = 0, height = 0, steps = 0;
  const FormField *image = form_take(form, "image");
  if (!ask_prompt(ask, form, f) || (image && !ask_add_images(ask, image, f)) ||
      !form_integer(form, "width", 16, MEDIA_SIDE, &width, f) ||
      !form_integer(form, "height", 16, MEDIA_SIDE, &height, f) || !form_integer(form, "steps", 1, 50, &steps, f) ||
      !form_integer(form, "num_images", 1, ASK_RESULTS, &ask->n, f) ||
      !read_number(form, ask, "guidance_scale", "guidance", 20, f) ||
      !read_number(form, ask, "true_cfg_scale", "true-cfg-scale", 20, f) || !read_switches(x->server, form, ask, f))
    return false;
  g_autofree char *count = g_strdup_printf("%d", steps), *size = g_strdup_printf("%dx%d", width, height);
  if (steps && !ask_set(ask, "steps", count, f)) return false;
  if ((width || height) && !ask_size(ask, "width", size, f)) return false;
  return ask_rest(ask, form, f);
}

/* "active", "off", or why it is off though nobody asked for that. */
static void add_optimizations(Json *j, const Server *server, const Job *job) {
  json_open(j, "optimizations", '{');
  for (guint i = 0; i < 2; i++)
    for (char **pair = job->active; pair && *pair; pair += 2) {
      if (strcmp(pair[0], switches[i].property)) continue;
      const bool on = g_str_has_prefix(pair[1], "on"), asked = g_str_has_prefix(pair[1], "off (off");
      json_text(j, switches[i].shown, on ? "active" : asked ? "off" : pair[1]);
    }
  const bool dpm = !strcmp(fk_settings_decided(job->ask->settings, "scheduler"), "dpmpp-2m");
  json_text(j, "dpm_solver", dpm ? "active" : "off");
  json_text(j, "mxfp4",
            g_str_has_prefix(fk_options_get(server->options[0], "quantization"), "mxfp4") ? "active" : "off");
  json_close(j, '}');
}

static void add_timings(Json *j, const FkResult *r) {
  json_open(j, "timings", '{');
  json_number(j, "text_ms", r->text_ms);
  json_number(j, "encode_ms", r->encode_ms);
  json_number(j, "denoise_ms", r->denoise_ms);
  json_number(j, "decode_ms", r->decode_ms);
  json_number(j, "total_ms", r->edit_ms);
  json_close(j, '}');
}

static void answer(Exchange *x, const Job *job) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  g_autofree char *seed = g_strdup_printf("%" G_GUINT64_FORMAT, job->pictures[0].result.seed);
  json_open(&j, NULL, '{');
  json_open(&j, "images", '[');
  for (int i = 0; i < job->ask->n; i++) edits_base64(&j, NULL, "", job->pictures[i].file);
  json_close(&j, ']');
  json_raw(&j, "seed", seed);
  add_timings(&j, &job->pictures[0].result);
  add_optimizations(&j, x->server, job);
  json_close(&j, '}');
  exchange_json(x, 200, text->str);
}

static void on_job(Exchange *x, Job *job, guint index, bool ended) {
  (void)index;
  if (ended) exchange_conclude(x, job, answer);
}

void fire_inference(Exchange *x) {
  g_auto(Form) form = {0};
  g_auto(Failure) f = {0};
  g_autoptr(Ask) ask = ask_new(x->server->defaults);
  g_autoptr(Job) job = NULL;
  if (exchange_form(x, &form, &f) && read_form(x, &form, ask, &f))
    job = exchange_submit(x, g_steal_pointer(&ask), "flux-fire", &f);
  if (!job) {
    exchange_fail(x, &f);
    return;
  }
  exchange_follow(x, job, on_job);
  if (job_ended(job)) on_job(x, job, 0, true);
}

/* ---- GET /benchmark?n=5&size=1024x1024&steps=28 ---- */

enum { RUNS = 20 };

typedef struct {
  int n, done;
  double ms[RUNS];
  char size[16], steps[8];
} Bench;

/* A picture of any size, always the same. */
static GBytes *made_up(int width, int height, Failure *f) {
  FkImage image = {.width = width, .height = height, .channels = 3, .stride = (size_t)width * 3};
  const size_t bytes = image.stride * (size_t)height;
  g_autofree uint8_t *data = image.data = g_try_malloc(bytes);
  if (!data) {
    fail(f, 500, "out_of_memory", "size", "size: no memory for %dx%d", width, height);
    return NULL;
  }
  for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)(i / 977);
  return media_encode(&image, MEDIA_JPEG, 90, f);
}

static Job *bench_submit(Exchange *x, const Bench *b, Failure *f) {
  g_autoptr(Ask) ask = ask_new(x->server->defaults);
  if (!ask_set(ask, "prompt", "make it night", f) || (*b->steps && !ask_set(ask, "steps", b->steps, f)) ||
      !ask_size(ask, "size", b->size, f))
    return NULL;
  if (!ask->width || (gint64)ask->width * ask->height > 4096 * 4096) {
    fail(f, 400, "invalid_value", "size", "size: expected WIDTHxHEIGHT of at most 4096x4096");
    return NULL;
  }
  GBytes *picture = made_up(ask->width, ask->height, f);
  if (!picture) return NULL;
  g_ptr_array_add(ask->images, picture);
  return exchange_submit(x, g_steal_pointer(&ask), "flux-fire", f);
}

static void bench_answer(Exchange *x, const Bench *b) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  double sum = 0, least = b->ms[0], most = b->ms[0];
  for (int i = 0; i < b->n; i++) {
    sum += b->ms[i];
    least = MIN(least, b->ms[i]);
    most = MAX(most, b->ms[i]);
  }
  json_open(&j, NULL, '{');
  json_count(&j, "n", b->n);
  json_text(&j, "size", b->size);
  json_text(&j, "device", fk_engine_machine(queue_engine(x->server->queue)));
  json_open(&j, "ms", '[');
  for (int i = 0; i < b->n; i++) json_number(&j, NULL, b->ms[i]);
  json_close(&j, ']');
  json_number(&j, "mean_ms", sum / b->n);
  json_number(&j, "min_ms", least);
  json_number(&j, "max_ms", most);
  json_close(&j, '}');
  exchange_json(x, 200, text->str);
}

static void on_bench(Exchange *x, Job *job, guint index, bool ended) {
  Bench *b = x->data;
  g_auto(Failure) f = {0};
  (void)index;
  if (!ended) return;
  g_autoptr(Job) alive = job_ref(job);
  if (job->state == JOB_DONE) b->ms[b->done++] = job->pictures[0].result.edit_ms;
  g_autoptr(Job) next = job->state == JOB_DONE && b->done < b->n ? bench_submit(x, b, &f) : NULL;
  if (next) {
    exchange_follow_next(x, next);
    return;
  }
  if (job->state != JOB_DONE)
    exchange_fail(x, &job->failure);
  else if (f.status)
    exchange_fail(x, &f);
  else
    bench_answer(x, b);
  exchange_done(x);
}

static bool another_runs(const Exchange *x) {
  for (guint i = 0; i < x->server->exchanges->len; i++) {
    const Exchange *other = g_ptr_array_index(x->server->exchanges, i);
    if (other != x && other->route == x->route && other->job) return true;
  }
  return false;
}

void fire_benchmark(Exchange *x) {
  g_auto(Failure) f = {0};
  const char *n = exchange_query(x, "n"), *size = exchange_query(x, "size"), *steps = exchange_query(x, "steps");
  gint64 count = 5;
  Bench b = {0};
  g_strlcpy(b.size, size ? size : "1024x1024", sizeof b.size);
  g_strlcpy(b.steps, steps ? steps : "", sizeof b.steps);
  if (n && !g_ascii_string_to_signed(n, 10, 1, RUNS, &count, NULL))
    fail(&f, 400, "invalid_value", "n", "n: \"%.100s\" is not an integer from 1 to %d", n, RUNS);
  else if (another_runs(x))
    fail(&f, 409, "busy", NULL, "a benchmark is running");
  b.n = (int)count;
  g_autoptr(Job) job = f.status ? NULL : bench_submit(x, &b, &f);
  if (!job) {
    exchange_fail(x, &f);
    return;
  }
  x->data = g_memdup2(&b, sizeof b);
  exchange_follow(x, job, on_bench);
}
