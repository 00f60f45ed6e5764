/* SPDX-License-Identifier: Apache-2.0 */
/* The configurations: the demo checkpoint's values, the published ones, and every value that must be refused by name.
 * Refusals are made by changing one field of the demo checkpoint's files. */
#include "config.h"
#include "test-files.h"

#include <json-glib/json-glib.h>
#include <math.h>

static const char *const files[] = {"model_index.json",
                                    "transformer/config.json",
                                    "vae/config.json",
                                    "text_encoder/config.json",
                                    "text_encoder_2/config.json",
                                    "scheduler/scheduler_config.json",
                                    "tokenizer/tokenizer_config.json",
                                    "tokenizer_2/tokenizer_config.json"};

static void copy_file(const char *name) {
  g_autofree char *from = g_build_filename(FK_DEMO_MODEL, name, NULL), *text = NULL;
  gsize size;
  g_assert_true(g_file_get_contents(from, &text, &size, NULL));
  g_free(write_bytes(name, text, size));
}

static void copy_all(void) {
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) copy_file(files[i]);
}

/* Writes the demo's file with one field set to a JSON text, byte for byte, or without it (NULL). */
static void change(const char *file, const char *field, const char *value) {
  g_autofree char *from = g_build_filename(FK_DEMO_MODEL, file, NULL);
  g_autoptr(JsonParser) parser = json_parser_new();
  g_assert_true(json_parser_load_from_file(parser, from, NULL));
  JsonNode *root = json_parser_get_root(parser);
  json_object_remove_member(json_node_get_object(root), field);
  g_autofree char *rest = json_to_string(root, FALSE);
  g_autofree char *text = value ? g_strdup_printf("{\"%s\":%s,%s", field, value, rest + 1) : g_strdup(rest);
  g_free(write_text(file, text));
}

static FkConfig load_changed(const char *file, const char *field, const char *value) {
  FkConfig c;
  g_autoptr(GError) error = NULL;
  change(file, field, value);
  fk_config_load(&c, scratch, &error);
  g_assert_no_error(error);
  copy_file(file);
  return c;
}

/* ---- Values ---- */

static void test_demo(void) {
  FkConfig c;
  g_autoptr(GError) error = NULL;
  memset(&c, 0xaa, sizeof c);
  g_assert_true(fk_config_load(&c, FK_DEMO_MODEL, &error));
  g_assert_no_error(error);
  g_assert_cmpint(c.pipeline, ==, FK_PIPELINE_KONTEXT);
  const int flux[] = {c.flux.patch_size,    c.flux.in_channels,     c.flux.out_channels, c.flux.layers,
                      c.flux.single_layers, c.flux.heads,           c.flux.head_width,   c.flux.joint_width,
                      c.flux.pooled_width,  c.flux.guidance_embeds, c.flux.axes[0],      c.flux.axes[1],
                      c.flux.axes[2]};
  const int flux_file[] = {1, 64, 64, 2, 5, 2, 128, 256, 128, 1, 16, 56, 56};
  g_assert_cmpmem(flux, sizeof flux, flux_file, sizeof flux_file);
  const int vae[] = {c.vae.in_channels,     c.vae.out_channels, c.vae.n_levels,    c.vae.channels[0],
                     c.vae.channels[1],     c.vae.channels[2],  c.vae.channels[3], c.vae.layers_per_block,
                     c.vae.latent_channels, c.vae.norm_groups,  c.vae.sample_size};
  const int vae_file[] = {3, 3, 4, 32, 64, 128, 128, 1, 16, 32, 256};
  g_assert_cmpmem(vae, sizeof vae, vae_file, sizeof vae_file);
  g_assert_cmpfloat(c.vae.scaling_factor, ==, 0.6454);
  g_assert_cmpfloat(c.vae.shift_factor, ==, -0.1685);
  const int clip[] = {c.clip.vocab,     c.clip.width,      c.clip.intermediate, c.clip.layers,    c.clip.heads,
                      c.clip.positions, c.clip.quick_gelu, c.clip.eos_token_id, c.clip.max_tokens};
  const int clip_file[] = {1083, 128, 512, 2, 2, 77, 1, 2, 77};
  g_assert_cmpmem(clip, sizeof clip, clip_file, sizeof clip_file);
  g_assert_cmpfloat(c.clip.eps, ==, 1e-5f);
  const int t5[] = {c.t5.vocab,  c.t5.width,   c.t5.kv,           c.t5.ff,        c.t5.heads,
                    c.t5.layers, c.t5.buckets, c.t5.max_distance, c.t5.max_tokens};
  const int t5_file[] = {377, 256, 64, 512, 4, 3, 32, 128, 64};
  g_assert_cmpmem(t5, sizeof t5, t5_file, sizeof t5_file);
  g_assert_cmpfloat(c.t5.eps, ==, 1e-6f);
  const FkSchedulerConfig *s = &c.scheduler;
  const int scheduler[] = {s->base_image_seq_len,  s->max_image_seq_len,
                           s->num_train_timesteps, s->use_dynamic_shifting,
                           s->use_karras_sigmas,   s->use_exponential_sigmas,
                           s->use_beta_sigmas,     s->time_shift_type == FK_TIME_SHIFT_EXPONENTIAL};
  const int scheduler_file[] = {256, 4096, 1000, 1, 0, 0, 0, 1};
  g_assert_cmpmem(scheduler, sizeof scheduler, scheduler_file, sizeof scheduler_file);
  g_assert_cmpfloat(s->base_shift, ==, 0.5);
  g_assert_cmpfloat(s->max_shift, ==, 1.15);
  g_assert_cmpfloat(s->shift, ==, 3.0);
  g_assert_true(isnan(s->shift_terminal));
}

/* Spec 1.2. */
static void test_presets(void) {
  FkConfig kontext, dev, schnell;
  g_assert_true(fk_config_preset(&kontext, "kontext-dev"));
  g_assert_true(fk_config_preset(&dev, "dev"));
  g_assert_true(fk_config_preset(&schnell, "schnell"));
  g_assert_false(fk_config_preset(&dev, "pro"));
  const int flux[] = {kontext.flux.in_channels,   kontext.flux.out_channels, kontext.flux.layers,
                      kontext.flux.single_layers, kontext.flux.heads,        kontext.flux.head_width,
                      kontext.flux.joint_width,   kontext.flux.pooled_width, kontext.flux.guidance_embeds};
  const int published[] = {64, 64, 19, 38, 24, 128, 4096, 768, 1};
  g_assert_cmpmem(flux, sizeof flux, published, sizeof published);
  g_assert_cmpfloat(kontext.vae.scaling_factor, ==, 0.3611);
  g_assert_cmpfloat(kontext.vae.shift_factor, ==, 0.1159);
  g_assert_cmpint(kontext.pipeline, ==, FK_PIPELINE_KONTEXT);
  g_assert_true(kontext.scheduler.use_dynamic_shifting && isnan(kontext.scheduler.shift_terminal));
  g_assert_cmpint(kontext.t5.max_tokens, ==, 512);
  g_assert_cmpint(dev.pipeline, ==, FK_PIPELINE_FLUX);
  g_assert_true(dev.flux.guidance_embeds);
  g_assert_false(schnell.flux.guidance_embeds || schnell.scheduler.use_dynamic_shifting);
  g_assert_cmpfloat(schnell.scheduler.shift, ==, 1.0);
  g_assert_cmpint(schnell.t5.max_tokens, ==, 256);
}

/* Fields that files may lack, with the defaults their classes document; other values are read. */
static void test_optional(void) {
  copy_all();
  const char *flux = files[1], *clip = files[3], *t5 = files[4], *scheduler = files[5];
  g_assert_cmpint(load_changed(flux, "out_channels", NULL).flux.out_channels, ==, 64);
  g_assert_cmpint(load_changed(flux, "patch_size", NULL).flux.patch_size, ==, 1);
  g_assert_cmpint(load_changed(flux, "axes_dims_rope", NULL).flux.axes[1], ==, 56);
  g_assert_cmpint(load_changed(flux, "axes_dims_rope", "[32,32,64]").flux.axes[2], ==, 64);
  g_assert_false(load_changed(flux, "guidance_embeds", "false").flux.guidance_embeds);
  g_assert_cmpint(load_changed(clip, "eos_token_id", NULL).clip.eos_token_id, ==, 49407);
  g_assert_cmpfloat(load_changed(clip, "layer_norm_eps", NULL).clip.eps, ==, 1e-5f);
  g_assert_cmpfloat(load_changed(clip, "layer_norm_eps", "1e-3").clip.eps, ==, 1e-3f);
  g_assert_false(load_changed(clip, "hidden_act", "\"gelu_pytorch_tanh\"").clip.quick_gelu);
  g_assert_cmpint(load_changed(t5, "relative_attention_max_distance", NULL).t5.max_distance, ==, 128);
  g_assert_cmpint(load_changed(t5, "dense_act_fn", NULL).t5.layers, ==, 3);
  g_assert_cmpint(load_changed(t5, "dense_act_fn", "\"gelu_pytorch_tanh\"").t5.layers, ==, 3);
  g_assert_cmpint(load_changed(t5, "is_gated_act", NULL).t5.layers, ==, 3);
  g_assert_cmpfloat(load_changed(scheduler, "shift", NULL).scheduler.shift, ==, 1.0);
  g_assert_cmpfloat(load_changed(scheduler, "max_shift", "2").scheduler.max_shift, ==, 2.0);
  g_assert_false(load_changed(scheduler, "use_dynamic_shifting", NULL).scheduler.use_dynamic_shifting);
  g_assert_true(load_changed(scheduler, "use_karras_sigmas", "true").scheduler.use_karras_sigmas);
  g_assert_true(isnan(load_changed(scheduler, "shift_terminal", NULL).scheduler.shift_terminal));
  g_assert_cmpfloat(load_changed(scheduler, "shift_terminal", "0.02").scheduler.shift_terminal, ==, 0.02);
  g_assert_cmpint(load_changed(scheduler, "time_shift_type", "\"linear\"").scheduler.time_shift_type, ==,
                  FK_TIME_SHIFT_LINEAR);
  g_assert_cmpint(load_changed(files[6], "model_max_length", NULL).clip.max_tokens, ==, 77);
  g_assert_cmpint(load_changed(files[7], "model_max_length", NULL).t5.max_tokens, ==, 512);
  g_free(write_text(files[7], "{\"model_max_length\": 1000000000000000019884624838656}"));
  g_assert_cmpint(load_changed(files[6], "model_max_length", "70").t5.max_tokens, ==, 512);
  copy_file(files[7]);
  g_assert_cmpint(load_changed(files[6], "model_max_length", "70").clip.max_tokens, ==, 70);
  g_assert_cmpint(load_changed(files[0], "_class_name", "\"FluxPipeline\"").pipeline, ==, FK_PIPELINE_FLUX);
  g_assert_cmpint(load_changed(files[0], "image_encoder", "null").pipeline, ==, FK_PIPELINE_KONTEXT);
  g_assert_cmpint(load_changed(files[0], "feature_extractor", NULL).pipeline, ==, FK_PIPELINE_KONTEXT);
  g_assert_cmpint(load_changed(files[0], "tokenizer_2", "[\"transformers\",\"T5Tokenizer\"]").t5.layers, ==, 3);
}

/* ---- Refusals ---- */

#define BAD FK_ERROR_MODEL_BAD
#define NOT_HERE FK_ERROR_MODEL_MISMATCH

static const struct {
  const char *file, *field, *value;
  FkError code;
  const char *text;
} refusals[] = {
    {"model_index.json", "_class_name", NULL, BAD, "is missing"},
    {"model_index.json", "_class_name", "\"FluxFillPipeline\"", NOT_HERE,
     "expected \"FluxKontextPipeline\" or \"FluxPipeline\", found \"FluxFillPipeline\""},
    {"model_index.json", "_class_name", "5", BAD, "expected a string, found 5"},
    {"model_index.json", "transformer", NULL, BAD, "is missing"},
    {"model_index.json", "transformer", "[null,null]", NOT_HERE, "expected class FluxTransformer2DModel, found none"},
    {"model_index.json", "transformer", "[\"diffusers\",\"SD3Transformer2DModel\"]", NOT_HERE,
     "expected class FluxTransformer2DModel, found SD3Transformer2DModel"},
    {"model_index.json", "vae", "[\"diffusers\"]", BAD, "expected [\"library\", \"class\"]"},
    {"model_index.json", "vae", "[\"diffusers\",7]", BAD, "expected [\"library\", \"class\"]"},
    {"model_index.json", "scheduler", "[\"diffusers\",\"UniPCMultistepScheduler\"]", NOT_HERE,
     "found UniPCMultistepScheduler"},
    {"model_index.json", "text_encoder_2", "[\"transformers\",\"UMT5EncoderModel\"]", NOT_HERE, "T5EncoderModel"},
    {"model_index.json", "image_encoder", "[\"transformers\",\"CLIPVisionModelWithProjection\"]", NOT_HERE,
     "expected no such component, found class CLIPVisionModelWithProjection"},
    {"model_index.json", "controlnet", "[\"diffusers\",\"FluxControlNetModel\"]", NOT_HERE,
     "found class FluxControlNet"},
    {"transformer/config.json", "in_channels", NULL, BAD, "is missing"},
    {"transformer/config.json", "in_channels", "null", BAD, "found null"},
    {"transformer/config.json", "in_channels", "\"64\"", BAD, "expected a whole number, found \"64\""},
    {"transformer/config.json", "in_channels", "64.0", BAD, "expected a whole number"},
    {"transformer/config.json", "in_channels", "0", NOT_HERE, "expected 1 to 1000000, found 0"},
    {"transformer/config.json", "in_channels", "-64", NOT_HERE, "found -64"},
    {"transformer/config.json", "in_channels", "1000001", NOT_HERE, "found 1000001"},
    {"transformer/config.json", "in_channels", "99999999999999999999", NOT_HERE, "expected 1 to 1000000"},
    {"transformer/config.json", "in_channels", "128", NOT_HERE, "transformer/config.json: expected 64"},
    {"transformer/config.json", "out_channels", "32", NOT_HERE, "expected 64 by \"latent_channels\""},
    {"transformer/config.json", "patch_size", "2", NOT_HERE, "expected 1, found 2"},
    {"transformer/config.json", "num_layers", "0", NOT_HERE, "found 0"},
    {"transformer/config.json", "num_layers", "1001", NOT_HERE, "found 1001"},
    {"transformer/config.json", "num_single_layers", "[5]", BAD, "expected a whole number, found a list of 1"},
    {"transformer/config.json", "num_attention_heads", "true", BAD, "expected a whole number, found true"},
    {"transformer/config.json", "num_attention_heads", "1025", NOT_HERE, "expected 1 to 1024, found 1025"},
    {"transformer/config.json", "attention_head_dim", "1000000", NOT_HERE, "expected 1 to 256, found 1000000"},
    {"transformer/config.json", "axes_dims_rope", "[2,2,999996]", NOT_HERE, "expected 2 to 256, found 999996"},
    {"transformer/config.json", "guidance_embeds", "\"a\\u001b[2J\"", BAD, "found \"a\\u001b[2J\""},
    {"transformer/config.json", "attention_head_dim", "127", NOT_HERE, "expected an even number, found 127"},
    {"transformer/config.json", "attention_head_dim", "64", NOT_HERE, "found 128"},
    {"transformer/config.json", "axes_dims_rope", "[16,56]", NOT_HERE, "expected 3 to 3 elements, found 2"},
    {"transformer/config.json", "axes_dims_rope", "[15,57,56]", NOT_HERE, "expected even sizes, found 15"},
    {"transformer/config.json", "axes_dims_rope", "[16,56,\"56\"]", BAD, "expected a whole number"},
    {"transformer/config.json", "axes_dims_rope", "128", BAD, "expected a list"},
    {"transformer/config.json", "guidance_embeds", NULL, BAD, "is missing"},
    {"transformer/config.json", "guidance_embeds", "1", BAD, "expected true or false, found 1"},
    {"transformer/config.json", "joint_attention_dim", "512", NOT_HERE, "expected 256 by \"d_model\""},
    {"transformer/config.json", "pooled_projection_dim", "768", NOT_HERE, "expected 128 by \"hidden_size\""},
    {"vae/config.json", "act_fn", "\"relu\"", NOT_HERE, "expected \"silu\", found \"relu\""},
    {"vae/config.json", "act_fn", NULL, BAD, "is missing"},
    {"vae/config.json", "in_channels", "4", NOT_HERE, "expected 3, found 4"},
    {"vae/config.json", "latent_channels", "4", NOT_HERE, "expected 16 by \"latent_channels\""},
    {"vae/config.json", "block_out_channels", "[]", NOT_HERE, "expected 1 to 8 elements, found 0"},
    {"vae/config.json", "block_out_channels", "[32,64,100,128]", NOT_HERE, "expected multiples of 32"},
    {"vae/config.json", "block_out_channels", "[32,64,-128,128]", NOT_HERE, "found -128"},
    {"vae/config.json", "down_block_types", "[\"DownEncoderBlock2D\"]", NOT_HERE, "expected 4 to 4 elements, found 1"},
    {"vae/config.json", "up_block_types",
     "[\"UpDecoderBlock2D\",\"AttnUpDecoderBlock2D\",\"UpDecoderBlock2D\",\"UpDecoderBlock2D\"]", NOT_HERE,
     "expected UpDecoderBlock2D, found \"AttnUpDecoderBlock2D\""},
    {"vae/config.json", "layers_per_block", "8", NOT_HERE, "expected 1 to 7, found 8"},
    {"vae/config.json", "layers_per_block", "9", NOT_HERE, "expected 1 to 7, found 9"},
    {"vae/config.json", "layers_per_block", "1000", NOT_HERE, "expected 1 to 7, found 1000"},
    {"vae/config.json", "norm_num_groups", "0", NOT_HERE, "found 0"},
    {"vae/config.json", "sample_size", NULL, BAD, "is missing"},
    {"vae/config.json", "scaling_factor", "0", NOT_HERE, "found 0"},
    {"vae/config.json", "scaling_factor", "1e300", NOT_HERE, "expected 1e-06 to 1e+06"},
    {"vae/config.json", "shift_factor", "null", BAD, "found null"},
    {"vae/config.json", "use_quant_conv", "true", NOT_HERE, "expected false, found true"},
    {"vae/config.json", "use_quant_conv", NULL, NOT_HERE, "found true (the default of an absent field)"},
    {"vae/config.json", "use_post_quant_conv", "true", NOT_HERE, "expected false, found true"},
    {"vae/config.json", "mid_block_add_attention", "false", NOT_HERE, "expected true, found false"},
    {"text_encoder/config.json", "hidden_act", "\"gelu\"", NOT_HERE, "found \"gelu\""},
    {"text_encoder/config.json", "hidden_size", "129", NOT_HERE, "expected a multiple of 2"},
    {"text_encoder/config.json", "vocab_size", NULL, BAD, "is missing"},
    {"text_encoder/config.json", "layer_norm_eps", "\"1e-5\"", BAD, "expected a number"},
    {"text_encoder/config.json", "layer_norm_eps", "-1", NOT_HERE, "found -1"},
    {"text_encoder_2/config.json", "feed_forward_proj", "\"relu\"", NOT_HERE,
     "expected \"gated-gelu\", found \"relu\""},
    {"text_encoder_2/config.json", "feed_forward_proj", NULL, NOT_HERE, "found \"relu\" (the default"},
    {"text_encoder_2/config.json", "dense_act_fn", "\"silu\"", NOT_HERE, "found \"silu\""},
    {"text_encoder_2/config.json", "is_gated_act", "false", NOT_HERE, "expected true, found false"},
    {"text_encoder_2/config.json", "d_kv", NULL, BAD, "is missing"},
    {"text_encoder_2/config.json", "relative_attention_num_buckets", "30", NOT_HERE, "multiple of 4, found 30"},
    {"text_encoder_2/config.json", "relative_attention_max_distance", "8", NOT_HERE, "expected more than 8, found 8"},
    {"scheduler/scheduler_config.json", "time_shift_type", "\"cosine\"", NOT_HERE, "found \"cosine\""},
    {"scheduler/scheduler_config.json", "invert_sigmas", "true", NOT_HERE, "expected false, found true"},
    {"scheduler/scheduler_config.json", "stochastic_sampling", "true", NOT_HERE, "expected false, found true"},
    {"scheduler/scheduler_config.json", "max_image_seq_len", "256", NOT_HERE, "found 256"},
    {"scheduler/scheduler_config.json", "shift_terminal", "1", NOT_HERE, "found 1"},
    {"scheduler/scheduler_config.json", "num_train_timesteps", "0", NOT_HERE, "found 0"},
    {"text_encoder/config.json", "max_position_embeddings", "1", NOT_HERE, "expected 2 to 1000000, found 1"},
    {"text_encoder_2/config.json", "num_heads", "1000000", NOT_HERE, "expected 1 to 1024, found 1000000"},
    {"text_encoder_2/config.json", "relative_attention_num_buckets", "65536", NOT_HERE, "expected 4 to 4096"},
#define LENGTHS(file)                                                                                                  \
  {file, "model_max_length", "\"512\"", BAD, "expected a whole number of at least 2, found \"512\""},                  \
      {file, "model_max_length", "0.5", BAD, "expected a whole number of at least 2, found 0.5"},                      \
      {file, "model_max_length", "1e300", BAD, "found 1e300"}, {file, "model_max_length", "64.0", BAD, "found 64.0"},  \
      {file, "model_max_length", "[64]", BAD, "found a list of 1"}, {file, "model_max_length", "0", BAD, "found 0"},   \
      {file, "model_max_length", "1", BAD, "found 1"}, {                                                               \
    file, "model_max_length", "-1", BAD, "found -1"                                                                    \
  }
    LENGTHS("tokenizer/tokenizer_config.json"),
    LENGTHS("tokenizer_2/tokenizer_config.json"),
};

static void test_refusals(void) {
  copy_all();
  for (size_t i = 0; i < G_N_ELEMENTS(refusals); i++) {
    FkConfig c, before;
    g_autoptr(GError) error = NULL;
    memset(&c, 0x55, sizeof c);
    memset(&before, 0x55, sizeof before);
    change(refusals[i].file, refusals[i].field, refusals[i].value);
    if (fk_config_load(&c, scratch, &error))
      g_error("%s: %s = %s was taken", refusals[i].file, refusals[i].field, refusals[i].value);
    g_assert_cmpmem(&c, sizeof c, &before, sizeof before); /* nothing half-read comes out */
    /* Fields that contradict another file are told with the names of both. */
    g_assert_nonnull(strstr(error->message, refusals[i].file));
    assert_error(error, (int)refusals[i].code, refusals[i].field, refusals[i].text);
    copy_file(refusals[i].file);
  }
  change("scheduler/scheduler_config.json", "use_karras_sigmas", "true");
  FkConfig c;
  g_assert_true(fk_config_load(&c, scratch, NULL));
}

/* Two sigma kinds at once; a number beyond any double. */
static void test_scheduler(void) {
  copy_all();
  g_free(write_text("scheduler/scheduler_config.json", "{\"use_karras_sigmas\":true,\"use_beta_sigmas\":true}"));
  FkConfig c;
  g_autoptr(GError) error = NULL;
  g_assert_false(fk_config_load(&c, scratch, &error));
  assert_error(error, FK_ERROR_MODEL_MISMATCH, "scheduler_config.json", "at most one of");
  g_free(write_text("scheduler/scheduler_config.json", "{\"shift\":1e999}"));
  g_assert_false(fk_config_load(&c, scratch, &error));
  assert_error(error, FK_ERROR_MODEL_MISMATCH, "scheduler_config.json", "field \"shift\": expected 1e-06 to 1e+06");
}

/* ---- Files that are not the JSON they should be ---- */

static void test_bad_json(void) {
  copy_all();
  g_autofree char *open_brackets = g_strnfill(1000000, '[');
  /* A quote in what other readers take for a comment, so that the brackets would stand in a string. */
  g_autofree char *hidden = g_strdup_printf("{\"a\":/*\"*/%.80000s/*\"*/}", open_brackets);
  g_autofree char *brackets = g_strdup_printf("{\"a\":%.80000s", open_brackets);
  g_autoptr(GString) lots = g_string_new("{\"a\":[1");
  for (int i = 0; i < 140000; i++) g_string_append(lots, ",1");
  const char *many = g_string_append(lots, "]}")->str;
  g_autofree char *objects = g_strnfill(65 * 5, ' ');
  for (int i = 0; i < 65; i++) memcpy(objects + 5 * i, "{\"a\":", 5);
  g_autofree char *long_text = g_strnfill((1 << 20) + 1, ' ');
  const struct {
    const char *text, *message;
  } cases[] = {
      {"", "expected a JSON object"},
      {"{", "found the end"},
      {"[]", "expected a JSON object"},
      {"5", "expected a JSON object"},
      {"{} x", "something follows"},
      {"{\"a\":1,}", "expected '\"'"},
      {"{\"a\":'b'}", "expected a JSON value"},
      {"{\"a\":NaN}", "expected a JSON value"},
      {"{\"a\":01}", "begins with 0"},
      {"{\"a\":1.}", "expected a digit"},
      {"{\"a\":-}", "expected a digit"},
      {"{\"a\":1e}", "expected a digit"},
      {"{\"a\":truely}", "expected '}'"},
      {"{\"a\" 1}", "expected ':'"},
      {"{\"a\":\"\t\"}", "control character"},
      {"{\"a\":\"\\u0000\"}", "NUL"},
      {"{\"a\":\"\\ud800\"}", "surrogate"},
      {"{/* note */}", "expected '\"'"},
      {"{# note\n}", "expected '\"'"},
      {"{\"a\":\"\xff\"}", "not UTF-8"},
      {"\xef\xbb\xbf{}", "expected a JSON object"},
      {"{\"a\":1,\"b\":2,\"\\u0061\":3}", "key \"a\" is there twice"},
      {"{\"x\":[{\"\\n\":1,\"\\n\":1}]}", "key \"\\u000a\" is there twice"},
      {open_brackets, "expected a JSON object"},
      {hidden, "expected a JSON value"},
      {brackets, "nested deeper than 64 levels"},
      {objects, "nested deeper than 64 levels"},
      {many, "more than 131072 values"},
      {long_text, "at most 1048576 bytes, found 1048577"},
  };
  for (size_t f = 0; f < G_N_ELEMENTS(files); f++)
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
      FkConfig c;
      g_autoptr(GError) error = NULL;
      g_free(write_text(files[f], cases[i].text));
      g_assert_false(fk_config_load(&c, scratch, &error));
      assert_error(error, FK_ERROR_MODEL_BAD, files[f], cases[i].message);
      copy_file(files[f]);
    }
}

static void test_missing_files(void) {
  for (size_t f = 0; f < G_N_ELEMENTS(files); f++) {
    copy_all();
    g_autofree char *path = scratch_path(files[f]);
    g_remove(path);
    FkConfig c;
    g_autoptr(GError) error = NULL;
    g_assert_false(fk_config_load(&c, scratch, &error));
    assert_error(error, FK_ERROR_MODEL_MISSING, files[f], "No such file");
  }
  FkConfig c;
  g_autoptr(GError) error = NULL;
  g_assert_false(fk_config_load(&c, "/nowhere/at/all", &error));
  assert_error(error, FK_ERROR_MODEL_MISSING, "/nowhere/at/all", "No such file");
}

/* Random damage to every file: an error that names it, or values inside their bounds. */
static void test_random_damage(void) {
  copy_all();
  g_autoptr(GRand) random = g_rand_new_with_seed(3);
  for (int i = 0; i < 4000; i++) {
    const char *name = files[i % (int)G_N_ELEMENTS(files)];
    g_autofree char *from = g_build_filename(FK_DEMO_MODEL, name, NULL), *text = NULL;
    gsize size;
    g_assert_true(g_file_get_contents(from, &text, &size, NULL));
    for (int n = g_rand_int_range(random, 1, 4); n > 0; n--)
      text[g_rand_int_range(random, 0, (gint32)size)] ^= (char)(1 << g_rand_int_range(random, 0, 8));
    g_free(write_bytes(name, text, g_rand_int_range(random, 0, 4) ? size : size / 2));
    FkConfig c;
    g_autoptr(GError) error = NULL;
    if (fk_config_load(&c, scratch, &error)) {
      g_assert_cmpint(c.flux.axes[0] + c.flux.axes[1] + c.flux.axes[2], ==, c.flux.head_width);
      g_assert_cmpint(c.flux.in_channels, ==, 4 * c.vae.latent_channels);
      g_assert_cmpint(c.t5.max_tokens, <=, 512);
    } else {
      g_assert_cmpuint(error->domain, ==, FK_ERROR);
      g_assert_nonnull(strstr(error->message, ".json"));
    }
    copy_file(name);
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/config/demo", test_demo);
  g_test_add_func("/config/presets", test_presets);
  g_test_add_func("/config/optional", test_optional);
  g_test_add_func("/config/refusals", test_refusals);
  g_test_add_func("/config/scheduler", test_scheduler);
  g_test_add_func("/config/bad-json", test_bad_json);
  g_test_add_func("/config/missing-files", test_missing_files);
  g_test_add_func("/config/random-damage", test_random_damage);
  int status = g_test_run();
  scratch_close();
  return status;
}
