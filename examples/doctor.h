/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of fluxkontext-doctor; all print to standard output. */
#ifndef DOCTOR_H
#define DOCTOR_H

#include <fk.h>

/* "20.5 MB" in `buffer`. */
const char *doctor_bytes(double bytes, char *buffer, size_t size);
/* Processor, memory, driver, and each device that an engine can open; rates: measured, too. False: not even the CPU. */
bool doctor_machine(bool rates);
/* Parts, types, sizes and tokenizers of a folder that an engine has opened. */
void doctor_model(const char *folder);
/* A file that fluxkontext-pack has made. */
bool doctor_packed(const char *path);
/* "FluxKontextPipeline", from model_index.json. (transfer full): NULL where it does not say. */
char *doctor_pipeline(const char *folder);
/* docs/tuning.md. */
void doctor_properties(void);

#endif
