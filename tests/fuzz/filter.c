/* SPDX-License-Identifier: Apache-2.0 */
/* Policy programs: a libFuzzer target.
 *
 * The input is a program (its length, then instructions) and a frame.  No program may touch memory that is not its own;
 * and of one that libpcap takes for valid the core must think what libpcap's own machine thinks, on the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "agent.c"

/* pcap/bpf.h has no other names than these for it: the types are ours. */
unsigned bpf_filter(const struct filter_insn *program, const u8 *frame, unsigned wire_length, unsigned length);
int bpf_validate(const struct filter_insn *program, int length);

static const u32 LINUX_EXTENSIONS = 0xfffff000; /* dysco_ns/agent/filters.py refuses them */

/* What is no program of libpcap's, or means something else outside the packet. */
static int is_valid(const struct policy *policy)
{
	for (u32 i = 0; i < policy->insns; i++) {
		const struct filter_insn *in = &policy->filter[i];
		if ((in->code & 7) <= BPF_LDX_ && in->k >= LINUX_EXTENSIONS)
			return 0;
	}
	return bpf_validate(policy->filter, (int)policy->insns);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct policy policy = { .id = 1 };
	u32 insns = size ? data[0] % (MAX_FILTER + 1) : 0;
	u32 program = insns * (u32)sizeof(struct filter_insn);

	if (!insns || size < 1 + program)
		return 0;
	struct agent *a = agent_new(1, 1);
	struct scratch *x = &a->scratch;
	policy.insns = insns;
	memcpy(policy.filter, data + 1, program);
	x->view_length = size - 1 - program > FILTER_VIEW ? FILTER_VIEW : (u32)(size - 1 - program);
	memcpy(x->view, data + 1 + program, x->view_length);
	here = a;
	int matched = filter_match(&policy) != 0;
	if (is_valid(&policy) && matched != (bpf_filter(policy.filter, x->view, x->view_length, x->view_length) != 0))
		abort(); /* libpcap thinks otherwise */
	agent_free(a);
	return 0;
}
