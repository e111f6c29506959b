/* SPDX-License-Identifier: Apache-2.0 */
/* DPDK's environment, from what the command line says. */
#ifndef DYSCO_DPDK_ENVIRONMENT_H
#define DYSCO_DPDK_ENVIRONMENT_H
#include "options.h"

/* Starts DPDK, with a thread for each core.  Ends the process with one line if it cannot. */
void environment_start(const struct options *o);
void environment_end(void);

/* The last line that DPDK has said. */
const char *environment_word(void);

int is_pci(const char *device);

/* Complaints that DPDK words badly: ends the process.  0: there is nothing to say; else the line. */
int device_complaint(const char *device, char *why, size_t room);

#endif
