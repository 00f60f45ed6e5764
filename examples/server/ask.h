/* SPDX-License-Identifier: Apache-2.0 */
/* What a request asks for, whichever API it came by: settings, pictures, how many results of which size and format. */
#ifndef ASK_H
#define ASK_H

#include "form.h"
#include "media.h"

enum { ASK_RESULTS = 10, ASK_PROMPT_BYTES = 32000 };

typedef struct {
  FkSettings *settings; /* of the first result; the seed of each further one is one higher */
  GPtrArray *images;    /* of GBytes: the files; the picture, then up to FK_REFERENCES that the prompt refers to */
  GBytes *mask;         /* nullable */
  int n;
  int width, height;             /* of the result; 0: as the picture */
  int image_width, image_height; /* of the first picture as its file declares them */
  gsize reference_pixels;
  MediaFit fit;
  MediaFormat format;
  int compression; /* as media_encode */
  bool generate;   /* from the prompt alone: no picture */
  bool mask_white; /* the mask is white where the picture is edited; else it is transparent there */
  int previews;    /* of each result while it is made */
} Ask;

/* defaults: copied. */
Ask *ask_new(const FkSettings *defaults);
void ask_free(Ask *ask);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ask, ask_free)
/* Is this one of the values of this property? */
bool ask_is_value(const char *name, const char *value);
/* May clients set this? Not where it names a file of the server. name: of the property, with '-' or '_'. */
bool ask_is_setting(const char *name);
/* Sets a property by its name, with '-' or '_'. */
bool ask_set(Ask *ask, const char *name, const char *value, Failure *f);
/* The prompt is required. */
bool ask_prompt(Ask *ask, Form *form, Failure *f);
bool ask_add_image(Ask *ask, const char *param, const char *base64, Failure *f);
/* A file, or base64 text, a data URL, an object with "image_url", or an array of these. */
bool ask_add_images(Ask *ask, const FormField *field, Failure *f);
/* "auto" or WIDTHxHEIGHT, multiples of 16. param: "size" */
bool ask_size(Ask *ask, const char *param, const char *text, Failure *f);
bool ask_format(Ask *ask, const char *name, Failure *f);
/* Every field that nobody has taken is a setting, or a failure: unknown_parameter. */
bool ask_rest(Ask *ask, Form *form, Failure *f);
/* All that can be known without decoding a pixel. */
bool ask_check(Ask *ask, gint64 max_pixels, Failure *f);

#endif
