/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The steps after a fast program as calls: what tail calls do in eBPF. */
#ifndef DYSCO_HOST_STEPS_H
#define DYSCO_HOST_STEPS_H
#include "datapath.h"

static int steps(struct packet *p, int verdict)
{
	for (;;) {
		switch (verdict) {
		case NEXT_SETUP_EGRESS: verdict = setup_egress(p); break;
		case NEXT_SETUP_INGRESS: verdict = setup_ingress(p); break;
		case NEXT_EDGE_EGRESS: verdict = edge_egress(p); break;
		case NEXT_EDGE_INGRESS: verdict = edge_ingress(p); break;
		case NEXT_ANCHOR_EGRESS: verdict = anchor_egress(p); break;
		case NEXT_ANCHOR_INGRESS: verdict = anchor_ingress(p); break;
		case NEXT_CONTROL: verdict = control_ingress(p); break;
		case NEXT_LOCK: verdict = lock_step(p); break;
		case NEXT_ANSWER: verdict = answer_step(p); break;
		case NEXT_RELEASE: verdict = release_step(p); break;
		case NEXT_TOMBSTONE: verdict = tombstone_egress(p); break;
		case NEXT_ICMP: verdict = icmp_ingress(p); break;
		default: return verdict;
		}
	}
}

#endif
