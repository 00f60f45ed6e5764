/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of pictures in device memory; see surface.h. */
#include "surface.h"

/* host: why it has to be there. */
static bool check(const FkImage *image, const char *host, int frame, const char *name, GError **error) {
  if (!host || (image->memory == FK_MEMORY_HOST && !image->planes)) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "frame %d: %s: expected pixels in host memory, found %s: %s", frame,
              name, image->memory == FK_MEMORY_HOST ? "planes" : "device memory", host);
  return false;
}

bool fk_surface_check(const FkBackend *be, const FkJob *jobs, int n, GError **error) {
  g_autofree char *machine = be ? g_strdup_printf("the engine runs on %s", be->machine) : NULL;
  const char *host = !be ? "a manifest is of those" : be->can & FK_CAN_DEVICE_IMAGES ? NULL : machine;
  for (int i = 0; i < n; i++) {
    const FkJob *job = &jobs[i];
    if (!check(&job->in, host, i, "input image", error) || !check(&job->out, host, i, "result image", error) ||
        (job->mask && !check(job->mask, "masks are prepared there", i, "mask", error)))
      return false;
    for (int k = 0; job->references && k < MIN(job->n_references, FK_REFERENCES); k++) {
      char name[24];
      g_snprintf(name, sizeof name, "reference %d", k);
      if (!check(&job->references[k], host, i, name, error)) return false;
    }
  }
  return true;
}
