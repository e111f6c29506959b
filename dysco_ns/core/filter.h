/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Policies: a classic BPF machine for the predicates that libpcap compiles (pcap-filter(7), McCanne & Jacobson 1993).
 *
 * It sees the first 128 bytes of a SYN.  A load outside them ends the program with "no match", as in libpcap.
 */
#ifndef DYSCO_FILTER_H
#define DYSCO_FILTER_H
#include "scratch.h"

enum { BPF_LD_ = 0, BPF_LDX_, BPF_ST_, BPF_STX_, BPF_ALU_, BPF_JMP_, BPF_RET_, BPF_MISC_ };
enum { FILTER_VIEW = 128 };

struct filter_machine {
	u32 a, x, pc;
};

/* Bytes at `at` as a big-endian number; *ok = 0 outside the view. */
INLINE u32 filter_load(struct scratch *w, u32 at, u32 size, int *ok)
{
	if (at + size > w->view_length || at > FILTER_VIEW - 4) {
		*ok = 0;
		return 0;
	}
	KEEP(at);
	at &= FILTER_VIEW - 1;
	if (at > FILTER_VIEW - 4)
		return 0;
	u32 word = load32(&w->view[at]);
	return size == 4 ? word : size == 2 ? word >> 16 : word >> 24;
}

INLINE u32 filter_alu(u16 code, u32 a, u32 b, int *ok)
{
	switch (code & 0xf0) {
	case 0x00: return a + b;
	case 0x10: return a - b;
	case 0x20: return a * b;
	case 0x30:
		if (!b)
			*ok = 0;
		return b ? a / b : 0;
	case 0x40: return a | b;
	case 0x50: return a & b;
	case 0x60: return b < 32 ? a << b : 0;
	case 0x70: return b < 32 ? a >> b : 0;
	case 0x80: return -a;
	case 0xa0: return a ^ b;
	}
	*ok = 0;
	return 0;
}

INLINE int filter_test(u16 code, u32 a, u32 b)
{
	switch (code & 0xf0) {
	case 0x10: return a == b;
	case 0x20: return a > b;
	case 0x30: return a >= b;
	default: return (a & b) != 0;
	}
}

INLINE u32 filter_size(u16 code) { return (code & 0x18) == 0x10 ? 1 : (code & 0x18) == 0x08 ? 2 : 4; }

INLINE u32 filter_value(struct scratch *w, struct filter_machine *m, u16 code, u32 k, int *ok)
{
	switch (code & 0xe0) {
	case 0x00: return k;                                                    /* immediate */
	case 0x20: return filter_load(w, k, filter_size(code), ok);             /* packet, absolute */
	case 0x40: return filter_load(w, k + m->x, filter_size(code), ok);      /* packet, indirect */
	case 0x60: return w->filter_memory[k & 15];
	case 0x80: return w->view_length;
	case 0xa0: return 4 * (filter_load(w, k, 1, ok) & 15);                  /* IP header length */
	}
	*ok = 0;
	return 0;
}

/* Runs one policy's filter over x->view: non-zero = match. */
NOINLINE int filter_match(struct policy *policy)
{
	struct scratch *w = port_scratch();
	struct filter_machine m = {};
	int ok = 1;

	if (!w || !policy)
		return 0;
	for (int turn = 0; turn < MAX_FILTER; turn++) {
		VARY(m.pc, w->view_length);
		VARY(m.a, w->view_length);
		VARY(m.x, w->view_length);
		if (m.pc >= MAX_FILTER || m.pc >= policy->insns)
			return 0;
		struct filter_insn *in = &policy->filter[m.pc & (MAX_FILTER - 1)];
		u16 code = in->code;
		u32 k = in->k, operand = code & 8 ? m.x : k;
		m.pc++;
		switch (code & 7) {
		case BPF_LD_: m.a = filter_value(w, &m, code, k, &ok); break;
		case BPF_LDX_: m.x = filter_value(w, &m, code, k, &ok); break;
		case BPF_ST_: w->filter_memory[k & 15] = m.a; break;
		case BPF_STX_: w->filter_memory[k & 15] = m.x; break;
		case BPF_ALU_: m.a = filter_alu(code, m.a, operand, &ok); break;
		case BPF_JMP_:
			m.pc += !(code & 0xf0) ? k : filter_test(code, m.a, operand) ? in->jt : in->jf;
			break;
		case BPF_RET_: return (code & 0x18) == 0x10 ? m.a != 0 : k != 0;
		default:
			if (code & 0x80)
				m.a = m.x;
			else
				m.x = m.a;
		}
		if (!ok)
			return 0;
	}
	return 0;
}

/* The first policy that matches the SYN in hand, or 0. */
INLINE struct policy *policy_match(struct packet *p, struct config *config)
{
	struct scratch *x = port_scratch();
	u32 length = port_length(p);

	if (!x || !config->policy_slots)
		return 0;
	length = length > FILTER_VIEW ? FILTER_VIEW : length;
	KEEP(length);
	if (length < AT_OPTIONS || length > FILTER_VIEW || port_load(p, 0, x->view, length))
		return 0;
	x->view_length = length;
	for (u32 i = 0; i < MAX_POLICIES; i++) {
		if (i >= config->policy_slots)
			break;
		struct policy *policy = port_policy(i);
		if (policy && policy->id && filter_match(policy))
			return policy;
	}
	return 0;
}

#endif
