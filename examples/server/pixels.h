/* SPDX-License-Identifier: Apache-2.0 */
/* What helper threads do to a job: its files become pixels, its results files. Nothing else looks at it meanwhile; what
 * goes wrong is job->trouble. */
#ifndef PIXELS_H
#define PIXELS_H

#include "jobs.h"

void pixels_decode(Job *job);
/* output_dir: results are written there too; nullable */
void pixels_encode(Job *job, const char *output_dir);

#endif
