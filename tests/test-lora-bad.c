/* SPDX-License-Identifier: Apache-2.0 */
/* Malformed adapters and lists: an error that names the file and what is wrong, and the weights stay. */
#include "adapters.h"
#include "test-files.h"

#include "lora-files.h"

#define D 256
#define Q "transformer.transformer_blocks.0.attn.to_q"

static FkModel *model;

static bool set(const char *list, GError **error) {
  bool text;
  return fk_adapters_set(model, list, &text, NULL, NULL, NULL, error);
}

/* One tensor of a file: zeros but for one number. */
typedef struct {
  const char *name, *shape;
  size_t n;
  float value; /* of the first number */
} Tensor;

#define MOST 5
typedef struct {
  const char *name;
  int code;
  const char *says[2];
  Tensor tensor[MOST];
} Case;

#define DOWN(stem)                                                                                                     \
  { stem ".lora_A.weight", "[4,256]", 4 * D, 1 }
#define UP(stem)                                                                                                       \
  { stem ".lora_B.weight", "[256,4]", 4 * D, 1 }
#define BAD FK_ERROR_MODEL_BAD
#define MISMATCH FK_ERROR_MODEL_MISMATCH

static const Case cases[] = {
    {"nothing", MISMATCH, {"none of its 0 tensors", "this model"}, {{0}}},
    {"foreign", MISMATCH, {"none of its 2 tensors", "unet.down.0"}, {DOWN("unet.down.0"), UP("unet.down.0")}},
    {"up-alone", BAD, {Q ".lora_B.weight", "other half is missing"}, {UP(Q)}},
    {"down-alone", BAD, {Q ".lora_A.weight", "other half is missing"}, {DOWN(Q)}},
    {"alpha-alone", BAD, {Q, "nothing but"}, {{Q ".alpha", "[]", 1, 1}}},
    {"rank",
     MISMATCH,
     {"expected shape [256,4], found [256,3]", Q},
     {DOWN(Q), {Q ".lora_B.weight", "[256,3]", 3 * D, 1}}},
    {"columns",
     MISMATCH,
     {"expected shape [any,256], found [4,64]", Q},
     {{Q ".lora_A.weight", "[4,64]", 256, 1}, UP(Q)}},
    {"rows",
     MISMATCH,
     {"expected shape [256,4], found [512,4]", Q},
     {DOWN(Q), {Q ".lora_B.weight", "[512,4]", 2048, 1}}},
    {"rank-0",
     MISMATCH,
     {"found [0,256]", Q},
     {{Q ".lora_A.weight", "[0,256]", 0, 0}, {Q ".lora_B.weight", "[256,0]", 0, 0}}},
    {"rank-2048",
     MISMATCH,
     {"a rank of at most 1024, found 2048", Q},
     {{Q ".lora_A.weight", "[2048,256]", 2048 * D, 1}, {Q ".lora_B.weight", "[256,2048]", 2048 * D, 1}}},
    {"vector", MISMATCH, {"found [1024]", Q}, {{Q ".lora_A.weight", "[1024]", 1024, 1}, UP(Q)}},
    {"kernel", MISMATCH, {"found [4,256,3,3]", Q}, {{Q ".lora_A.weight", "[4,256,3,3]", 36 * D, 1}, UP(Q)}},
    {"alpha-nan", BAD, {Q ".alpha", "is nan"}, {DOWN(Q), UP(Q), {Q ".alpha", "[]", 1, NAN}}},
    {"alpha-0", BAD, {Q ".alpha", "expected a positive number, found 0"}, {DOWN(Q), UP(Q), {Q ".alpha", "[]", 1, 0}}},
    {"alpha-negative", BAD, {Q ".alpha", "found -4"}, {DOWN(Q), UP(Q), {Q ".alpha", "[1]", 1, -4}}},
    {"alpha-infinite", BAD, {Q ".alpha", "is inf"}, {DOWN(Q), UP(Q), {Q ".alpha", "[]", 1, INFINITY}}},
    {"alpha-vector", BAD, {Q ".alpha", "of shape [2]"}, {DOWN(Q), UP(Q), {Q ".alpha", "[2]", 2, 1}}},
    {"nan", BAD, {Q ".lora_A.weight", "number 0 is nan"}, {{Q ".lora_A.weight", "[4,256]", 4 * D, NAN}, UP(Q)}},
    {"infinite",
     BAD,
     {Q ".lora_B.weight", "number 0 is inf"},
     {DOWN(Q), {Q ".lora_B.weight", "[256,4]", 4 * D, INFINITY}}},
    {"two-suffixes", BAD, {"the same as", Q}, {DOWN(Q), UP(Q), {Q ".lora_down.weight", "[4,256]", 4 * D, 1}}},
    {"two-dialects",
     BAD,
     {"the same weight as of", "to_q"},
     {DOWN(Q),
      UP(Q),
      {"lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight", "[4,256]", 4 * D, 1},
      {"lora_transformer_transformer_blocks_0_attn_to_q.lora_up.weight", "[256,4]", 4 * D, 1}}},
    {"fused-and-single",
     BAD,
     {"the same weight as of", "qkv"},
     {DOWN(Q),
      UP(Q),
      {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "[4,256]", 4 * D, 1},
      {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", "[768,4]", 12 * D, 1}}},
    {"two-kinds", BAD, {"changes of two kinds", Q}, {DOWN(Q), UP(Q), {Q ".diff", "[256,256]", D *D, 1}}},
    {"loha-half",
     BAD,
     {"one half of a LoHa", Q},
     {{Q ".hada_w1_a", "[256,4]", 4 * D, 1}, {Q ".hada_w1_b", "[4,256]", 4 * D, 1}}},
    {"lokr-sizes",
     MISMATCH,
     {"expected factors of [256,256], found [3,4] and [64,64]", Q},
     {{Q ".lokr_w1", "[3,4]", 12, 1}, {Q ".lokr_w2", "[64,64]", 4096, 1}}},
    {"lokr-one", BAD, {"lokr_w2 is missing", Q}, {{Q ".lokr_w1", "[4,4]", 16, 1}}},
    {"lokr-both",
     BAD,
     {"and its factors are both there", Q},
     {{Q ".lokr_w1", "[4,4]", 16, 1},
      {Q ".lokr_w1_a", "[4,2]", 8, 1},
      {Q ".lokr_w1_b", "[2,4]", 8, 1},
      {Q ".lokr_w2", "[64,64]", 4096, 1}}},
    {"lokr-conv", MISMATCH, {"LoKr of convolutions", Q}, {{Q ".lokr_t2", "[4,4]", 16, 1}}},
    {"oft", MISMATCH, {"OFT cannot be applied", Q}, {{Q ".oft_blocks", "[4,4]", 16, 1}}},
    {"boft", MISMATCH, {"BOFT cannot be applied", Q}, {{Q ".boft_R", "[4,4]", 16, 1}}},
    {"glora", MISMATCH, {"GLoRA cannot be applied", Q}, {{Q ".a1.weight", "[4,4]", 16, 1}}},
    {"locon", MISMATCH, {"LoCon", Q}, {{Q ".lora_mid.weight", "[4,4]", 16, 1}}},
    {"vera", MISMATCH, {"VeRA cannot be applied", Q}, {{Q ".vera_lambda_b", "[4]", 4, 1}}},
    {"control",
     MISMATCH,
     {"a control LoRA", "a second image"},
     {{"img_in.lora_A.weight", "[4,128]", 512, 1},
      {"double_blocks.0.img_attn.norm.query_norm.scale", "[128]", 128, 1}}},
    {"wide-input",
     MISMATCH,
     {"img_in.lora_A.weight", "expected shape [any,64], found [4,128]"},
     {{"img_in.lora_A.weight", "[4,128]", 512, 1}, {"img_in.lora_B.weight", "[256,4]", 1024, 1}}},
    {"magnitude-shape",
     MISMATCH,
     {"expected shape [256,1] or [1,256], found [2,128]", Q},
     {DOWN(Q), UP(Q), {Q ".dora_scale", "[2,128]", D, 1}}},
    {"magnitude-alone",
     BAD,
     {"magnitudes without a product", Q},
     {{Q ".diff", "[256,256]", D *D, 1}, {Q ".dora_scale", "[256]", D, 1}}},
    {"no-bias",
     MISMATCH,
     {"changes a bias, and the module has none", "SelfAttention"},
     {{"text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.diff_b", "[256]", D, 1}}},
};

static char *write_case(const Case *c, const char *type) {
  LoraFile f = lora_file_new();
  f.type = type;
  for (int i = 0; i < MOST && c->tensor[i].name; i++) {
    const Tensor *t = &c->tensor[i];
    g_autofree float *values = g_new0(float, t->n + 1);
    values[0] = t->value;
    lora_put(&f, t->name, t->shape, values, t->n);
  }
  return lora_write(&f, c->name);
}

static void refused(void) {
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const Case *c = &cases[i];
    g_autoptr(GError) error = NULL;
    g_autofree char *path = write_case(c, "F32");
    g_test_message("%s", c->name);
    g_assert_false(set(path, &error));
    g_assert_nonnull(strstr(error->message, path));
    g_test_message("  %s", error->message);
    assert_error(error, c->code, c->says[0], c->says[1]);
  }
  g_assert_null(model->adapters.loras);
}

/* Types of other formats, and numbers that are no types of weights. */
static void types(void) {
  static const char *const headers[] = {"I8", "U8", "F64", "F8_E5M2", "BOOL"};
  static const int bytes[] = {1, 1, 8, 1, 1};
  for (size_t i = 0; i < G_N_ELEMENTS(headers); i++) {
    g_autoptr(GError) error = NULL;
    const int n = 4 * D * bytes[i];
    g_autofree char *header =
        g_strdup_printf("{\"" Q ".lora_A.weight\":{\"dtype\":\"%s\",\"shape\":[4,256],\"data_offsets\":[0,%d]},\"" Q
                        ".lora_B.weight\":{\"dtype\":\"%s\",\"shape\":[256,4],\"data_offsets\":[%d,%d]}}",
                        headers[i], n, headers[i], n, 2 * n);
    g_autofree char *data = g_malloc0((gsize)n * 2), *path = write_safetensors("types", header, data, (size_t)n * 2);
    g_assert_false(set(path, &error));
    assert_error(error, FK_ERROR_MODEL_MISMATCH, "expected F32, F16, BF16 or F8_E4M3", headers[i]);
  }
}

/* peft's metadata is JSON inside JSON. */
static void metadata(void) {
  static const struct {
    const char *text, *says;
    int code;
  } cases[] = {{"{", "lora_adapter_metadata", BAD},
               {"[1]", "lora_adapter_metadata", BAD},
               {"{\\\"transformer.lora_alpha\\\": -1}", "expected a positive alpha, found -1", BAD},
               {"{\\\"transformer.lora_alpha\\\": 1e999}", "expected a positive alpha", BAD},
               {"{\\\"transformer.lora_alpha\\\": \\\"8\\\"}", "found \"8\"", BAD},
               {"{\\\"transformer.alpha_pattern\\\": {\\\"to_q\\\": []}}", "found a list of 0", BAD}};
  g_autofree float *values = g_new0(float, 4 * D);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    LoraFile f = lora_file_new();
    g_string_append_printf(f.header, "\"__metadata__\":{\"lora_adapter_metadata\":\"%s\"}", cases[i].text);
    lora_put(&f, Q ".lora_A.weight", "[4,256]", values, 4 * D);
    lora_put(&f, Q ".lora_B.weight", "[256,4]", values, 4 * D);
    g_autofree char *path = lora_write(&f, "metadata");
    g_assert_false(set(path, &error));
    assert_error(error, cases[i].code, cases[i].says, path);
  }
}

static void lists(void) {
  static const Case good = {"good", BAD, {"", ""}, {DOWN(Q), UP(Q)}};
  g_autofree char *path = write_case(&good, "F32"), *link = scratch_path("link");
  g_assert_cmpint(symlink(path, link), ==, 0);
  g_autofree char *twice = g_strdup_printf("%s; %s:0.5", path, link), *many = g_strnfill(200, ';');
  g_autofree char *ended = g_strdup_printf("%s; ", path);
  g_autofree char *nan = g_strdup_printf("%s:nan", path), *huge = g_strdup_printf("%s:1e4", path),
                  *half = g_strdup_printf("%s:0.5x", path), *none = g_strdup_printf("%s:", path),
                  *hex = g_strdup_printf("%s:0x1", path);
  g_autoptr(GString) long_list = g_string_new(NULL);
  for (int i = 0; i < 33; i++) g_string_append_printf(long_list, "%sa%d", i ? ";" : "", i);
  const struct {
    const char *list, *says;
    int code;
  } cases[] = {{":0.5", "expected a path", FK_ERROR_OPTION_BAD},
               {huge, "a weight from -1000 to 1000", FK_ERROR_OPTION_BAD},
               {half, "a weight from -1000 to 1000", FK_ERROR_OPTION_BAD},
               {hex, "a weight from -1000 to 1000", FK_ERROR_OPTION_BAD},
               {none, "a weight from -1000 to 1000", FK_ERROR_OPTION_BAD},
               {nan, "No such file", FK_ERROR_MODEL_MISSING}, /* a path may have a ':' */
               {twice, "the same file twice", FK_ERROR_OPTION_BAD},
               {long_list->str, "loras: expected up to 32 files, found 33", FK_ERROR_OPTION_BAD},
               {many, "loras: expected a file between semicolons, entry 1 is empty", FK_ERROR_OPTION_BAD},
               {ended, "loras: expected a file between semicolons, entry 2 is empty", FK_ERROR_OPTION_BAD},
               {scratch, "expected", FK_ERROR_MODEL_BAD},
               {"/dev/zero", "expected", FK_ERROR_MODEL_BAD},
               {"no/such/file", "loras: no/such/file", FK_ERROR_MODEL_MISSING}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_assert_false(set(cases[i].list, &error));
    assert_error(error, cases[i].code, cases[i].says, "");
  }
}

/* A file that several threads look at: of two numbers that are none the error has the first in the file's order. */
static void large(void) {
  static const char *const letters = "qkv";
  const size_t n = 1024 * D;
  g_autofree float *values = g_new0(float, n);
  for (int bad = 0; bad < 6; bad++) {
    g_autoptr(GError) error = NULL;
    LoraFile f = lora_file_new();
    for (int i = 0; i < 6; i++) {
      g_autofree char *stem = g_strdup_printf("transformer.transformer_blocks.%d.attn.to_%c", i / 3, letters[i % 3]);
      g_autofree char *down = g_strconcat(stem, ".lora_A.weight", NULL),
                      *up = g_strconcat(stem, ".lora_B.weight", NULL);
      values[n - 1] = i >= bad ? NAN : 1;
      lora_put(&f, down, "[1024,256]", values, n);
      lora_put(&f, up, "[256,1024]", values, n);
    }
    g_autofree char *path = lora_write(&f, "large");
    g_autofree char *says = g_strdup_printf("blocks.%d.attn.to_%c.lora_", bad / 3, letters[bad % 3]);
    g_assert_false(set(path, &error));
    assert_error(error, FK_ERROR_MODEL_BAD, says, "number 262143 is nan");
  }
}

/* A tensor without a place is no error beside others that have one; how many there are does not make the text long. */
static void unmatched(void) {
  LoraFile f = lora_file_new();
  g_autofree float *values = g_new0(float, 4 * D);
  lora_put(&f, Q ".lora_A.weight", "[4,256]", values, 4 * D);
  lora_put(&f, Q ".lora_B.weight", "[256,4]", values, 4 * D);
  for (int i = 0; i < 3000; i++) {
    g_autofree char *name = g_strdup_printf("bundle_emb%d.\\u202e%s", i, i % 7 ? "x" : "\\\"<b>");
    lora_put(&f, name, "[1]", values, 1);
  }
  g_autofree char *path = lora_write(&f, "unmatched");
  g_autoptr(GError) error = NULL;
  set(path, &error);
  g_assert_no_error(error);
  g_assert_cmpint(fk_loras_unmatched(model->adapters.loras), ==, 3000);
  g_autofree char *text = fk_loras_text(model->adapters.loras);
  g_test_message("%s", text);
  g_assert_nonnull(
      strstr(text, "unmatched:1 (peft, 1 modules; 3000 tensors have no place in this model: bundle_emb0."));
  g_assert_cmpuint(strlen(text), <, 1000);
  set(NULL, &error);
  g_assert_no_error(error);
}

/* A model's own file has norms as a control LoRA has, and no adapter. */
static void whole_model(void) {
  LoraFile f = lora_file_new();
  g_autofree float *values = g_new0(float, 4 * D);
  lora_put(&f, "double_blocks.0.img_attn.norm.key_norm.scale", "[128]", values, 128);
  lora_put(&f, "double_blocks.0.img_attn.proj.weight", "[4,256]", values, 4 * D);
  g_autofree char *path = lora_write(&f, "whole");
  g_autoptr(GError) error = NULL;
  set(path, &error);
  assert_error(error, FK_ERROR_MODEL_MISMATCH, "none of its 2 tensors is an adapter", "double_blocks");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  char message[256];
  FkFailure failure;
  g_autoptr(GError) error = NULL;
  FkBackend *be = fk_backend_open("cpu", -1, 1, &failure, message, sizeof message);
  model = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error);
  g_assert_no_error(error);
  g_test_add_func("/lora-bad/files", refused);
  g_test_add_func("/lora-bad/types", types);
  g_test_add_func("/lora-bad/metadata", metadata);
  g_test_add_func("/lora-bad/lists", lists);
  g_test_add_func("/lora-bad/large", large);
  g_test_add_func("/lora-bad/unmatched", unmatched);
  g_test_add_func("/lora-bad/whole-model", whole_model);
  const int failed = g_test_run();
  fk_model_free(model);
  fk_backend_close(be);
  scratch_close();
  return failed;
}
