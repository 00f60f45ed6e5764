/* SPDX-License-Identifier: Apache-2.0 */
/* The pixels of a job, before and after its edit; see pixels.h. */
#include "pixels.h"

/* One channel, 255 where the picture is edited. */
static bool decode_mask(Job *job) {
  FkImage *m = &job->mask;
  const bool white = job->ask->mask_white;
  if (!media_decode(job->ask->mask, "mask", m, &job->trouble)) return false;
  if (m->width != job->in.width || m->height != job->in.height)
    return fail(&job->trouble, 400, "invalid_image", "mask", "mask: %dx%d; expected %dx%d, as the picture", m->width,
                m->height, job->in.width, job->in.height);
  if (!white && m->channels != 4)
    return fail(&job->trouble, 400, "invalid_image", "mask",
                "mask: it has no transparency, which is where the edit goes");
  const size_t n = (size_t)m->width * (size_t)m->height, step = (size_t)m->channels;
  for (size_t i = 0; i < n; i++) {
    const uint8_t *pixel = m->data + i * step;
    m->data[i] = white ? (uint8_t)((pixel[0] + pixel[1] + pixel[2]) / 3) : (uint8_t)(255 - pixel[3]);
  }
  m->channels = 1;
  m->stride = (size_t)m->width;
  return true;
}

void pixels_decode(Job *job) {
  const Ask *ask = job->ask;
  Failure *f = &job->trouble;
  if (ask->generate) {
    job->in = (FkImage){.width = ask->width, .height = ask->height, .channels = 3};
    return;
  }
  if (!media_decode(g_ptr_array_index(ask->images, 0), "image", &job->in, f)) return;
  for (guint i = 1; i < ask->images->len; i++, job->n_references++)
    if (!media_decode(g_ptr_array_index(ask->images, i), "image", &job->references[i - 1], f)) return;
  if (ask->mask && !decode_mask(job)) return;
  if (ask->width && !media_fit(&job->in, ask->width, ask->height, ask->fit, f)) return;
  if (ask->width && ask->mask && !media_fit(&job->mask, ask->width, ask->height, ask->fit, f)) return;
  if (ask->format == MEDIA_JPEG && job->in.channels == 4)
    fail(f, 400, "invalid_value", "output_format", "output_format: jpeg has no transparency, which the picture has");
}

/* Under the name that its address has. */
static void save(const char *folder, const Job *job, int i, Failure *f) {
  g_autofree char *name = g_strdup_printf("%s-%d.%s", job->key, i, media_name(job->ask->format));
  g_autofree char *path = g_build_filename(folder, name, NULL);
  gsize n;
  const char *data = g_bytes_get_data(job->pictures[i].file, &n);
  g_autoptr(GError) error = NULL;
  if (!fk_file_write(path, data, n, &error))
    fail(f, 500, "output_failed", NULL, "the result cannot be written: %s", error->message);
}

void pixels_encode(Job *job, const char *output_dir) {
  job->pictures = g_new0(JobPicture, (gsize)job->ask->n);
  for (int i = 0; i < job->ask->n && !job->trouble.status; i++) {
    JobPicture *p = &job->pictures[i];
    *p = (JobPicture){.result = job->results[i],
                      .width = job->out[i].width,
                      .height = job->out[i].height,
                      .hash = media_hash(&job->out[i]),
                      .manifest = g_steal_pointer(&job->manifests[i]),
                      .file = media_encode(&job->out[i], job->ask->format, job->ask->compression, &job->trouble)};
    if (p->file && output_dir) save(output_dir, job, i, &job->trouble);
  }
  if (!job->trouble.status) return;
  for (int i = 0; i < job->ask->n; i++) {
    if (job->pictures[i].file) g_bytes_unref(job->pictures[i].file);
    g_free(job->pictures[i].hash);
    g_free(job->pictures[i].manifest);
  }
  g_clear_pointer(&job->pictures, g_free);
}
