/* SPDX-License-Identifier: Apache-2.0 */
/* The handlers of all routes. */
#ifndef API_H
#define API_H

#include "http.h"

/* openai.c */
void openai_edits(Exchange *x);
void openai_generations(Exchange *x);
void openai_models(Exchange *x);
/* native.c */
void native_edits(Exchange *x);
void native_job(Exchange *x);
void native_cancel(Exchange *x);
void native_result(Exchange *x);
void native_events(Exchange *x);
void native_file(Exchange *x);
/* fire.c */
void fire_inference(Exchange *x);
void fire_benchmark(Exchange *x);
/* bfl.c */
void bfl_edit(Exchange *x);
void bfl_result(Exchange *x);
/* a1111.c */
void a1111_img2img(Exchange *x);
void a1111_options(Exchange *x);
void a1111_set_options(Exchange *x);
void a1111_models(Exchange *x);
void a1111_samplers(Exchange *x);
void a1111_progress(Exchange *x);
void a1111_interrupt(Exchange *x);
/* page.c */
void page_html(Exchange *x);
void page_settings(Exchange *x);
void page_openapi(Exchange *x);
/* status.c */
void status_health(Exchange *x);
void status_live(Exchange *x);
void status_ready(Exchange *x);
void status_metrics(Exchange *x);

#endif
