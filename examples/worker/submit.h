/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-batch submit, status and collect: a list of edits given to workers instead of done here. */
#ifndef SUBMIT_H
#define SUBMIT_H

#include <stdbool.h>

/* Is the first argument one of the three? */
bool submit_is_command(const char *argument);
/* argv[0]: the command. Exit status: 0 all submitted, or all there; 1 an error, or not all there; 2 usage; 3 the queue
 * is full. */
int submit_main(int argc, char **argv);

#endif
