/* SPDX-License-Identifier: Apache-2.0 */
/* The errors of the public interface. Part of fk.h, which applications include; a header of its own because the files
 * below the engine report them too. */
#ifndef FK_ERROR_H
#define FK_ERROR_H

#include <glib.h>

G_BEGIN_DECLS

#if defined(__GNUC__)
#define FK_API __attribute__((visibility("default")))
#else
#define FK_API
#endif

#define FK_ERROR (fk_error_quark())
FK_API GQuark fk_error_quark(void);

typedef enum {
  FK_ERROR_MODEL_MISSING,   /* a file or folder of the model is not there */
  FK_ERROR_MODEL_DENIED,    /* it is there and may not be read */
  FK_ERROR_MODEL_BAD,       /* a file is malformed; the message names file and tensor or field */
  FK_ERROR_MODEL_MISMATCH,  /* well-formed, but not of a shape, type or kind that can be run */
  FK_ERROR_BACKEND_MISSING, /* no such device, driver, module or architecture */
  FK_ERROR_OPTION_BAD,      /* a property's value that cannot be had */
  FK_ERROR_MEMORY,          /* too little memory; the message has bytes needed and free */
  FK_ERROR_DEVICE,          /* the device failed during work */
  FK_ERROR_DEVICE_LOST,     /* the same, and the process must be restarted to use it again */
  FK_ERROR_NONFINITE,       /* NaN or infinity; the message names the stage */
  FK_ERROR_CANCELLED,
  FK_ERROR_SHAPE /* a picture's sides: no settings' fault, others can be edited */
} FkError;

G_END_DECLS

#endif
