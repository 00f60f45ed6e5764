/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are compiled in, each with a 0 at its end. */
#ifndef RESOURCES_H
#define RESOURCES_H

extern const char resource_page[], resource_openapi[];

#endif
