/* SPDX-License-Identifier: Apache-2.0 */
/* Ports: pairs of them, each with a queue for every core where it can. */
#ifndef DYSCO_DPDK_PORTS_H
#define DYSCO_DPDK_PORTS_H
#include "options.h"

/* Why a port is not there or does not start. */
enum { WHY_BYTES = 512 };

/* Starts a port, with a queue each way for every core if it has so many; *rx and *tx get how many.  < 0: it would not. */
int port_start(u16 port, struct rte_mempool *pool, u32 cores, u16 *rx, u16 *tx);

/* One more pair, of devices by their names; DPDK makes those that it does not have yet.  < 0: `why` says what is wrong, and
 * nothing has changed. */
int pair_add(struct shared *s, const char *wire, const char *host, char *why);

/* Starts both ports of each pair.  Ends the process with one line if one is missing. */
void ports_start(struct shared *s, const struct options *o);
void ports_stop(struct shared *s);

#endif
