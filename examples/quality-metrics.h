/* SPDX-License-Identifier: Apache-2.0 */
/* How far apart two pictures are: 8-bit RGB of one size, rows without gaps. Larger is nearer. */
#ifndef QUALITY_METRICS_H
#define QUALITY_METRICS_H

#include <stdint.h>

/* Equal pictures have no finite dB; they count as this. */
#define QUALITY_IDENTICAL 100.0
/* Of 255. */
#define QUALITY_CHANGED 12

/* dB over all channels; peak 255. */
double quality_psnr(const uint8_t *a, const uint8_t *b, int width, int height);
/* Wang et al. 2004 as scikit-image computes it: Gaussian window of 11x11, sigma 1.5, population covariance, mean over
 * the channels and over the pixels whose window lies inside. Both sides >= 11. */
double quality_ssim(const uint8_t *a, const uint8_t *b, int width, int height);
/* dB of the differences between neighbours, horizontal and vertical ones together; peak 255. Says how well edges are
 * kept, whatever a flat error of brightness does. */
double quality_edges(const uint8_t *a, const uint8_t *b, int width, int height);
/* The share of the picture that an edit changed, 0 to 1: blocks of 8x8 pixels, cut off at the right and the lower edge,
 * whose mean in some channel differs by more than QUALITY_CHANGED. A loss of detail alone, as an autoencoder's, is no
 * change. */
double quality_changed(const uint8_t *a, const uint8_t *b, int width, int height);

#endif
