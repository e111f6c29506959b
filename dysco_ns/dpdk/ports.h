/* SPDX-License-Identifier: Apache-2.0 */
/* DPDK's environment and the ports, from what the command line says. */
#ifndef DYSCO_DPDK_PORTS_H
#define DYSCO_DPDK_PORTS_H
#include "options.h"

/* Starts DPDK on one core.  Ends the process with one line if it cannot. */
void environment_start(const struct options *o);

/* Starts a port with one queue each way.  < 0: it would not start. */
int port_start(u16 port, struct rte_mempool *pool);

/* Starts both ports of each pair.  Ends the process with one line if one is missing. */
void ports_start(struct agent *a, const struct options *o);
void ports_stop(struct agent *a);

#endif
