/* SPDX-License-Identifier: Apache-2.0 */
/* What dysco-dpdk is told when it starts. */
#ifndef DYSCO_DPDK_OPTIONS_H
#define DYSCO_DPDK_OPTIONS_H
#include "state.h"

struct options {
	const char *wire[MAX_PAIRS], *host[MAX_PAIRS];  /* devices: a PCI address, or NAME,ARGUMENT=VALUE... of a virtual one */
	u32 pairs;
	const char *socket;     /* 0: nobody drives it */
	const char *prefix;     /* of DPDK's files */
	u32 cores;              /* that work */
	int processor[MAX_CORES];       /* of each; < 0: whichever the system gives */
	u32 sessions, memory_mb;
	int poll, json, huge, no_huge;
	u64 packets;            /* end after so many; 0: do not */
};

/* Reads the command line.  Prints what is wrong, one line, and ends with status 2; --help ends with 0. */
void options_read(struct options *o, int argc, char **argv);

/* One line on stderr, and the end. */
void fail(int status, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

#endif
