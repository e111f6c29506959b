/* SPDX-License-Identifier: Apache-2.0 */
/* Policies of which one is meant: filters (classic BPF) that say yes or no to every SYN of the simulation. */
#include <string.h>

#include "sim.h"

enum { LD_W_ABS = 0x20, LD_H_ABS = 0x28, LD_B_ABS = 0x30, LD_H_IND = 0x48, LD_IMM = 0x00, LD_MEM = 0x60, LD_LEN = 0x80,
       LDX_MSH = 0xb1, LDX_IMM = 0x01, LDX_MEM = 0x61, ST = 0x02, STX = 0x03, TAX = 0x07, TXA = 0x87, RET_K = 0x06, RET_A = 0x16,
       JA = 0x05, JEQ = 0x15, JGT = 0x25, JGE = 0x35, JSET = 0x45, JGT_X = 0x2d,
       ADD = 0x04, SUB = 0x14, MUL = 0x24, DIV = 0x34, OR = 0x44, AND = 0x54, LSH = 0x64, RSH = 0x74, NEG = 0x84, XOR = 0xa4, DIV_X = 0x3c };

struct filter {
	int yes;
	struct filter_insn insn[32];
};

static const struct filter FILTERS[] = {
	{ 1, { { RET_K, 0, 0, 1 } } },
	{ 0, { { RET_K, 0, 0, 0 } } },
	/* "tcp dst port 5001", as libpcap compiles it, IPv6 left out */
	{ 1, { { LD_H_ABS, 0, 0, 12 }, { JEQ, 0, 8, 0x800 }, { LD_B_ABS, 0, 0, 23 }, { JEQ, 0, 6, 6 }, { LD_H_ABS, 0, 0, 20 },
	       { JSET, 4, 0, 0x1fff }, { LDX_MSH, 0, 0, 14 }, { LD_H_IND, 0, 0, 16 }, { JEQ, 0, 1, 5001 }, { RET_K, 0, 0, 65535 },
	       { RET_K, 0, 0, 0 } } },
	{ 0, { { LDX_MSH, 0, 0, 14 }, { LD_H_IND, 0, 0, 16 }, { JEQ, 0, 1, 5002 }, { RET_K, 0, 0, 65535 }, { RET_K, 0, 0, 0 } } },
	/* "src net 10.0.0.0/24 and tcp[tcpflags] & tcp-syn != 0" */
	{ 1, { { LD_W_ABS, 0, 0, 26 }, { AND, 0, 0, 0xffffff00 }, { JEQ, 0, 4, 0x0a000000 }, { LDX_MSH, 0, 0, 14 }, { 0x50, 0, 0, 27 },
	       { JSET, 0, 1, 2 }, { RET_K, 0, 0, 1 }, { RET_K, 0, 0, 0 } } },
	/* arithmetic: ((((7 + 5 - 2) * 6 / 4) << 3 >> 1 | 3) ^ 1) = 62; -62 + 63 = 1 */
	{ 1, { { LD_IMM, 0, 0, 7 }, { ADD, 0, 0, 5 }, { SUB, 0, 0, 2 }, { MUL, 0, 0, 6 }, { DIV, 0, 0, 4 }, { LSH, 0, 0, 3 },
	       { RSH, 0, 0, 1 }, { OR, 0, 0, 3 }, { XOR, 0, 0, 1 }, { JEQ, 0, 5, 62 }, { NEG, 0, 0, 0 }, { ADD, 0, 0, 63 },
	       { JEQ, 0, 2, 1 }, { LSH, 0, 0, 32 }, { JEQ, 1, 0, 0 }, { RET_K, 0, 0, 0 }, { RET_K, 0, 0, 1 } } },
	/* memory, both registers, comparisons at their edges */
	{ 1, { { LD_IMM, 0, 0, 9 }, { ST, 0, 0, 3 }, { LDX_IMM, 0, 0, 8 }, { STX, 0, 0, 15 }, { LD_MEM, 0, 0, 3 }, { JGT_X, 0, 8, 0 },
	       { JGT, 7, 0, 9 }, { JGE, 0, 6, 9 }, { TXA, 0, 0, 0 }, { JEQ, 0, 4, 8 }, { ADD, 0, 0, 1 }, { TAX, 0, 0, 0 },
	       { LDX_MEM, 0, 0, 15 }, { JA, 0, 0, 1 }, { RET_K, 0, 0, 0 }, { RET_A, 0, 0, 0 } } },
	{ 0, { { LDX_IMM, 0, 0, 0 }, { TXA, 0, 0, 0 }, { RET_A, 0, 0, 0 } } },
	/* division by zero, a load outside and running off the end mean no */
	{ 0, { { LDX_IMM, 0, 0, 0 }, { LD_IMM, 0, 0, 1 }, { DIV_X, 0, 0, 0 }, { RET_K, 0, 0, 1 } } },
	{ 0, { { LD_B_ABS, 0, 0, 2000 }, { RET_K, 0, 0, 1 } } },
	{ 0, { { LD_LEN, 0, 0, 0 }, { SUB, 0, 0, 3 }, { TAX, 0, 0, 0 }, { 0x40, 0, 0, 0 }, { RET_K, 0, 0, 1 } } },
	{ 1, { { LD_LEN, 0, 0, 0 }, { SUB, 0, 0, 4 }, { TAX, 0, 0, 0 }, { 0x40, 0, 0, 0 }, { RET_K, 0, 0, 1 } } },
	{ 0, { { LD_IMM, 0, 0, 1 } } },
};
enum { COUNT = sizeof(FILTERS) / sizeof(*FILTERS) };

static struct policy *policy_add(struct sim *s, int host, int yes)
{
	struct config *config = agent_config(s->agent[host]);
	struct policy *p = agent_policy(s->agent[host], config->policy_slots++);
	const struct filter *f;

	do
		f = &FILTERS[sim_random(s, COUNT)];
	while (f->yes != yes);
	*p = (struct policy){ .id = config->policy_slots, .on_no_agent = 1 };
	memcpy(p->filter, f->insn, sizeof(f->insn));
	while (p->insns < 32 && (p->filter[p->insns].code || p->filter[p->insns].k))
		p->insns++;
	return p;
}

static void decoys(struct sim *s, int host, int yes)
{
	struct policy *p = policy_add(s, host, yes);

	for (uint32_t i = s->scenario.middleboxes; i && p->chain_length < MAX_MIDDLEBOXES; i--)
		p->chain[p->chain_length++] = s->address[i];
}

/* What a proxy opens goes through middleboxes that the client's sessions have not passed. */
static void proxy_policy(struct sim *s)
{
	struct policy *p = policy_add(s, (int)s->scenario.proxy, 1);

	for (uint32_t i = s->scenario.chain + 1; i <= s->scenario.middleboxes && sim_random(s, 2); i++)
		if (i != s->scenario.proxy)
			p->chain[p->chain_length++] = s->address[i];
}

/* The client's policies lead through the first middleboxes; sometimes the first of these knows the rest. */
void policies_start(struct sim *s)
{
	uint32_t length = s->scenario.chain, told = length > 1 && sim_random(s, 2) ? 1 : length;

	while (sim_random(s, 2))
		decoys(s, 0, 0);
	if (sim_random(s, 2))
		agent_config(s->agent[0])->policy_slots++; /* a free slot */
	struct policy *p = policy_add(s, 0, 1);
	for (uint32_t i = 0; i < told; i++)
		p->chain[p->chain_length++] = s->address[1 + i];
	decoys(s, 0, 1);
	if (s->scenario.proxy)
		proxy_policy(s);
	if (told == length)
		return;
	p = policy_add(s, 1, 1);
	for (uint32_t i = 0; i < length && p->chain_length < MAX_MIDDLEBOXES; i++)
		p->chain[p->chain_length++] = s->address[1 + i]; /* itself among them: it must leave that out */
}
