// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Dysco at tc: one small program for each step of the core's data path (core/datapath.h), and nothing else. */
#include "tc_port.h"
#include "segment.h"
#include "emit.h"
#include "datapath.h"

char license_text[] SEC("license") = "Dual BSD/GPL";

/* So that the object's BTF names them. */
const volatile struct {
	enum counter counter;
	enum event_kind event;
	enum refusal refusal;
	enum phase phase;
	enum lock_state lock;
	enum session_flag session;
	enum entry_flag entry;
	enum reconfig_flag reconfig;
	enum command_kind command;
	enum next_program program;
	enum control_flag control;
	struct event event_record;
	struct command command_record;
} names;
const volatile u32 layout_version = LAYOUT_VERSION;

/* The core's verdict as tc's.  "Pass" lets other programs on the interface have their say. */
INLINE int tc_verdict(struct packet *p, int verdict)
{
	switch (verdict) {
	case VERDICT_PASS: return TC_ACT_UNSPEC;
	case VERDICT_DROP: return TC_ACT_SHOT;
	case VERDICT_SENT: return TC_ACT_REDIRECT;
	}
	bpf_tail_call(p, &program_table, verdict);
	return TC_ACT_SHOT;
}

SEC("tc") int dysco_egress(struct packet *p)
{
	if (p->mark == MARK_SENT) {
		p->mark = 0;
		return TC_ACT_UNSPEC;
	}
	if (p->mark == MARK_EMIT) {
		struct scratch *x = port_scratch();
		p->mark = 0;
		if (x && x->emission.armed)
			return tc_verdict(p, NEXT_EMIT);
		p->mark = MARK_SENT;
		return (int)bpf_redirect_neigh(p->ifindex, 0, 0, 0);
	}
	return tc_verdict(p, egress(p));
}

SEC("tc") int dysco_ingress(struct packet *p)
{
	if (p->mark == MARK_SENT) {
		p->mark = 0;
		return TC_ACT_UNSPEC;
	}
	return tc_verdict(p, ingress(p));
}

#define STEP(name) SEC("tc") int dysco_##name(struct packet *p) { return tc_verdict(p, name(p)); }
STEP(setup_egress)
STEP(setup_ingress)
STEP(edge_egress)
STEP(edge_ingress)
STEP(anchor_egress)
STEP(anchor_ingress)
STEP(control_ingress)
STEP(lock_step)
STEP(answer_step)
STEP(release_step)
STEP(tombstone_egress)
STEP(icmp_ingress)
STEP(emit)

SEC("tc") int dysco_command(struct packet *p) { return (int)command_run(p); }
