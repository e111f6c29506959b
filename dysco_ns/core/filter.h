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

struct filter_run {
	struct policy *policy;
	struct scratch *w;
};

/* Bytes at `at` as a big-endian number; *ok = 0 outside the view. */
INLINE u32 filter_load(struct scratch *w, u32 at, u32 size, int *ok)
{
	if (at + size > w->view_length || at >= FILTER_VIEW) {
		*ok = 0;
		return 0;
	}
	KEEP(at);
	at &= FILTER_VIEW - 1;
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
	case 0x90:
		if (!b)
			*ok = 0;
		return b ? a % b : 0;
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
	case 0x60: return m->memory[k & 15];
	case 0x80: return w->view_length;
	case 0xa0: return 4 * (filter_load(w, k, 1, ok) & 15);                  /* IP header length */
	}
	*ok = 0;
	return 0;
}

/* One instruction; non-zero ends the program. */
static long filter_step(u32 turn, void *context)
{
	struct filter_run *run = context;
	struct scratch *w = run->w;
	struct filter_machine *m = &w->machine;
	int ok = 1;

	(void)turn;
	if (m->pc >= MAX_FILTER || m->pc >= run->policy->insns)
		return 1;
	struct filter_insn *in = &run->policy->filter[m->pc & (MAX_FILTER - 1)];
	u16 code = in->code;
	u32 k = in->k, operand = code & 8 ? m->x : k;
	m->pc++;
	switch (code & 7) {
	case BPF_LD_: m->a = filter_value(w, m, code, k, &ok); break;
	case BPF_LDX_: m->x = filter_value(w, m, code, k, &ok); break;
	case BPF_ST_: m->memory[k & 15] = m->a; break;
	case BPF_STX_: m->memory[k & 15] = m->x; break;
	case BPF_ALU_: m->a = filter_alu(code, m->a, operand, &ok); break;
	case BPF_JMP_: m->pc += !(code & 0xf0) ? k : filter_test(code, m->a, operand) ? in->jt : in->jf; break;
	case BPF_RET_: m->matched = (code & 0x18) == 0x10 ? m->a != 0 : k != 0; return 1;
	default:
		if (code & 0x80)
			m->a = m->x;
		else
			m->x = m->a;
	}
	return !ok;
}

/* Runs one policy's filter over x->view: non-zero = match. */
NOINLINE int filter_match(struct policy *policy)
{
	struct filter_run run = { policy, port_scratch() };

	if (!run.w || !policy)
		return 0;
	__builtin_memset(&run.w->machine, 0, sizeof(run.w->machine));
	port_loop(MAX_FILTER, filter_step, &run);
	return (int)run.w->machine.matched;
}

/* A search for the first policy that matches. */
struct policy_search {
	u32 first, end, found;  /* slots; found: counted from 1 */
};

static long policy_try(u32 i, void *context)
{
	struct policy_search *search = context;
	struct policy *policy = search->first + i < search->end ? port_policy(search->first + i) : 0;

	if (!policy)
		return 1;
	if (!policy->id || !filter_match(policy))
		return 0;
	search->found = search->first + i + 1;
	return 1;
}

/* The first policy that matches the SYN in hand, or 0. */
INLINE struct policy *policy_match(struct packet *p, struct config *config)
{
	struct scratch *x = port_scratch();
	u32 length = port_length(p), slots = config->policy_slots, first = slots >> 16;

	if (!x || !slots)
		return 0;
	length = length > FILTER_VIEW ? FILTER_VIEW : length;
	KEEP(length);
	if (length < AT_OPTIONS || length > FILTER_VIEW || port_load(p, 0, x->view, length))
		return 0;
	x->view_length = length;
	struct policy_search search = { first, first + (slots & 0xffff), 0 };
	port_loop(MAX_POLICIES, policy_try, &search);
	return search.found ? port_policy(search.found - 1) : 0;
}

#endif
