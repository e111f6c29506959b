/* SPDX-License-Identifier: Apache-2.0 */
/* Policy programs: a libFuzzer target.
 *
 * The input is a program (its length, then instructions) and a frame.  No program may touch memory that is not its own;
 * and of one that libpcap takes for valid the core must think what libpcap's own machine thinks, on the same bytes.
 */
#include <stddef.h>
#include <stdlib.h>

#include "port.h"
#include "segment.h"
#include "filter.h"

/* pcap/bpf.h has no other names than these for it: the types are ours. */
unsigned bpf_filter(const struct filter_insn *program, const u8 *frame, unsigned wire_length, unsigned length);
int bpf_validate(const struct filter_insn *program, int length);

static const u32 LINUX_EXTENSIONS = 0xfffff000; /* dysco_ns/agent/filters.py refuses them */

/* Instructions that libpcap's compiler may write: at some others its machine gives up the ghost. */
static const u8 known[] = {
	0x00, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x80,   /* ld */
	0x01, 0x61, 0x81, 0xb1, 0x02, 0x03,                     /* ldx, st, stx */
	0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x84, 0x94, 0xa4, 0x0c, 0x1c, 0x2c, 0x3c, 0x4c, 0x5c, 0x6c, 0x7c, 0x9c, 0xac,
	0x05, 0x15, 0x25, 0x35, 0x45, 0x1d, 0x2d, 0x3d, 0x4d,   /* jumps */
	0x06, 0x16, 0x07, 0x87,                                 /* ret, tax, txa */
};

/* Not so what means something else outside the packet. */
static int is_valid(const struct policy *policy)
{
	for (u32 i = 0; i < policy->insns; i++) {
		const struct filter_insn *in = &policy->filter[i];
		if (in->code > 0xff || !memchr(known, in->code, sizeof(known)) || ((in->code & 7) <= BPF_LDX_ && in->k >= LINUX_EXTENSIONS))
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
	struct agent *a = calloc(1, sizeof(*a));
	struct scratch *x = &a->scratch;
	policy.insns = insns;
	memcpy(policy.filter, data + 1, program);
	x->view_length = size - 1 - program > FILTER_VIEW ? FILTER_VIEW : (u32)(size - 1 - program);
	memcpy(x->view, data + 1 + program, x->view_length);
	here = a;
	int matched = filter_match(&policy) != 0;
	if (is_valid(&policy) && matched != (bpf_filter(policy.filter, x->view, x->view_length, x->view_length) != 0))
		abort(); /* libpcap thinks otherwise */
	free(a);
	return 0;
}
