/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copies and pieces of a segment: bare acknowledgments, and the exact split of a straddling segment, GSO included.
 *
 * A piece starts as a clone of the whole packet and is cut to size when the clone passes egress.  What remains is
 * popped off the front of the original.  Popping more than the headers leaves a GSO packet without a usable partial
 * checksum: the kernel then segments it in software and sums every segment anew, and pieces are summed here.
 */
#ifndef DYSCO_EBPF_EMIT_H
#define DYSCO_EBPF_EMIT_H
#include "segment.h"

enum { BLOCK = 256, BLOCKS_OF_A_FRAME = 36, PIECES = 48, POP_AT_ONCE = 4000, CUT_TAIL_MAX = 9000 };

/* A walk over payload bytes, one turn of bpf_loop() a block: the verifier sees the body once. */
struct walk {
	struct packet *p;
	struct emission *m;
	u32 at, left, by, failed;
	u64 sum;
};

INLINE u32 walk_bytes(const struct walk *w, u32 most)
{
	u32 bytes = w->left > most ? most : w->left;
	KEEP(bytes);
	return bytes;
}

INLINE void walk_on(struct walk *w, u32 bytes)
{
	w->at += bytes;
	w->left -= bytes;
}

static long sum_block(u32 turn, void *context)
{
	struct walk *w = context;
	u32 bytes = walk_bytes(w, BLOCK);

	(void)turn;
	if (bytes < 1 || bytes > BLOCK)
		return 1;
	__builtin_memset(w->m->block, 0, BLOCK);
	w->failed = (u32)bpf_skb_load_bytes(w->p, w->at, w->m->block, bytes);
	w->sum = (u32)bpf_csum_diff(0, 0, (__be32 *)w->m->block, BLOCK, fold32(w->sum));
	walk_on(w, bytes);
	return w->failed != 0;
}

/* One's-complement sum of n payload bytes at `at`, as if they began at an even offset. */
INLINE u32 payload_sum(struct packet *p, struct emission *m, u32 at, u32 n, u32 seed)
{
	struct walk w = { .p = p, .m = m, .at = at, .left = n, .sum = seed };

	if (n)
		bpf_loop(BLOCKS_OF_A_FRAME, sum_block, &w, 0);
	return fold32(w.sum);
}

/* Sums the whole segment anew and writes its checksum: for packets without a usable one. */
NOINLINE int checksum_whole(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct wire_ip ip;
	u16 zero = 0;

	if (!x || !p || bpf_skb_load_bytes(p, AT_IP, &ip, sizeof(ip)))
		return -1;
	u32 bytes = be16_of(ip.total_length) - 20;
	if (bytes > CUT_TAIL_MAX || bpf_skb_store_bytes(p, AT_TCP_CHECKSUM, &zero, 2, 0))
		return -1;
	u64 sum = (u64)ip.src + ip.dst + be16_of(PROTOCOL_TCP) + be16_of(bytes);
	u16 field = (u16)~fold16(payload_sum(p, &x->emission, AT_TCP, bytes, fold32(sum)));
	return (int)bpf_skb_store_bytes(p, AT_TCP_CHECKSUM, &field, 2, 0);
}

static long shift_block(u32 turn, void *context)
{
	struct walk *w = context;
	u32 bytes = walk_bytes(w, BLOCK);

	(void)turn;
	if (bytes < 1 || bytes > BLOCK)
		return 1;
	w->failed = bpf_skb_load_bytes(w->p, w->at + w->by, w->m->block, bytes) ||
		    bpf_skb_store_bytes(w->p, w->at, w->m->block, bytes, 0);
	walk_on(w, bytes);
	return w->failed != 0;
}

/* Moves the payload of an ordinary packet down by m->from bytes and cuts the tail. */
NOINLINE int payload_shift(struct packet *p)
{
	struct scratch *x = port_scratch();

	if (!x || !p)
		return -1;
	struct emission *m = &x->emission;
	struct walk w = { .p = p, .m = m, .at = AT_TCP + m->header, .left = m->payload - m->from, .by = m->from };
	if (w.by > CUT_TAIL_MAX || w.left > CUT_TAIL_MAX)
		return -1;
	bpf_loop(BLOCKS_OF_A_FRAME, shift_block, &w, 0);
	if (w.failed)
		return -1;
	return (int)bpf_skb_change_tail(p, AT_TCP + m->header + m->payload - m->from, 0);
}

/* Writes the header and lengths of a piece.  Its checksum is then partial as before, or must be summed anew. */
INLINE int piece_header(struct packet *p, struct emission *m, u32 payload)
{
	struct wire_ip ip;
	u32 header = m->header;

	KEEP(header);
	if (header < 20 || header > MAX_HEADER || bpf_skb_load_bytes(p, AT_IP, &ip, sizeof(ip)))
		return -1;
	u64 pseudo = 0, change;
	be16 total = be16_of(20 + header + payload);
	sum_replace32(&pseudo, ip.src, m->to.src);
	sum_replace32(&pseudo, ip.dst, m->to.dst);
	change = pseudo;
	sum_replace16(&change, ip.total_length, total);
	sum_replace16(&pseudo, be16_of(be16_of(ip.total_length) - 20), be16_of(header + payload));
	ip.src = m->to.src;
	ip.dst = m->to.dst;
	ip.total_length = total;
	ip.checksum = checksum_apply(ip.checksum, change);
	u64 tcp = port_sum_change(m->old, m->new);
	if (bpf_skb_store_bytes(p, AT_IP, &ip, sizeof(ip), 0) || bpf_skb_store_bytes(p, AT_TCP, m->new, header, 0))
		return -1;
	port_checksum(p, pseudo, tcp);
	return 0;
}

/* Program: the clone passes egress and becomes the piece. */
INLINE int emit(struct packet *p)
{
	struct scratch *x = port_scratch();

	if (!x)
		return VERDICT_DROP;
	struct emission *m = &x->emission;
	u32 header = m->header, from = m->from, length = m->length, payload = m->payload;
	KEEP(header);
	if (header < 20 || header > MAX_HEADER || from + length > payload)
		return VERDICT_DROP;
	int ordinary = !p->gso_size;
	u32 cut = payload - from - length;
	/* the sum of what is cut off, for packets that carry a full checksum; no-op for partial ones */
	u64 gone = 0;
	if (ordinary && !m->full_checksum && cut <= CUT_TAIL_MAX) {
		u32 sum = payload_sum(p, m, AT_TCP + header - (u32)m->grown + from + length, cut, 0);
		gone = (from + length) & 1 ? at_odd_offset(sum) : sum;
	}
	if (bpf_skb_change_tail(p, AT_TCP + header + from + length, 0)) {
		port_count(COUNT_EMIT_FAILED);
		return VERDICT_DROP;
	}
	if (gone)
		port_checksum(p, 0, (u32)~fold32(gone));
	if (piece_header(p, m, length))
		return VERDICT_DROP;
	if (m->full_checksum && checksum_whole(p))
		return VERDICT_DROP;
	return port_leave_cut(p, m->next_hop);
}

static long pop_some(u32 turn, void *context)
{
	struct walk *w = context;
	u32 bytes = walk_bytes(w, POP_AT_ONCE);

	(void)turn;
	if (bytes < 1 || bytes > POP_AT_ONCE)
		return 1;
	w->failed = (u32)bpf_skb_adjust_room(w->p, -(s32)bytes, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO);
	walk_on(w, bytes);
	return w->failed != 0;
}

/* Takes n payload bytes off the front of a super-packet. */
NOINLINE int payload_pop(struct packet *p, u32 n)
{
	struct scratch *x = port_scratch();

	if (!x || !p || n > 65535)
		return -1;
	struct emission *m = &x->emission;
	struct walk w = { .p = p, .m = m, .left = n };
	u32 header = m->header;
	KEEP(header);
	if (header < 20 || header > MAX_HEADER || bpf_skb_load_bytes(p, AT_TCP, m->block, header))
		return -1;
	bpf_loop(17, pop_some, &w, 0);
	return w.failed || w.left ? -1 : (int)bpf_skb_store_bytes(p, AT_TCP, m->block, header, 0);
}

INLINE void piece_advance(struct emission *m, u32 by)
{
	store32(&m->new[4], load32(&m->new[4]) + by);
	header_advance(m->new, by);
	m->payload -= by;
}

static long split_piece(u32 turn, void *context)
{
	struct walk *w = context;
	struct emission *m = w->m;
	u32 bytes = w->left > w->by ? w->by : w->left;

	(void)turn;
	if (!bytes)
		return 1;
	m->length = bytes;
	port_emit(w->p);
	w->failed = (u32)payload_pop(w->p, bytes);
	piece_advance(m, bytes);
	m->full_checksum = 1;
	w->left -= bytes;
	return w->failed != 0;
}

/* The first `head` bytes of a super-packet leave as pieces of one wire segment each. */
INLINE int split_gso(struct packet *p, struct scratch *x, u32 head, u32 mss)
{
	struct walk w = { .p = p, .m = &x->emission, .left = head, .by = mss };

	bpf_loop(PIECES, split_piece, &w, 0);
	return w.failed || w.left ? -1 : 0;
}

/* port_split: the first `head` bytes leave by the emission; the rest stays in hand.  docs/data-path.md explains. */
NOINLINE int port_split(struct packet *p, u32 head)
{
	struct scratch *x = port_scratch();

	if (!x || !p)
		return -1;
	struct emission *m = &x->emission;
	u32 mss = p->gso_size, payload = m->payload;
	if (head < 1 || head >= payload)
		return -1;
	m->full_checksum = 0;
	if (mss) {
		if (head <= 40) /* popping so little would leave a partial checksum in the wrong place */
			return -1;
		if (split_gso(p, x, head, mss))
			return -1;
	} else {
		m->length = head;
		port_emit(p);
		m->from = head;
		if (payload_shift(p))
			return -1;
	}
	x->segment.payload = payload;
	x->segment.new_payload = payload - head;
	return 0;
}

/* port_split_finish: after the rest has its header, its checksum. */
NOINLINE int port_split_finish(struct packet *p)
{
	struct scratch *x = port_scratch();

	if (!x || !p)
		return -1;
	u32 rest = x->segment.new_payload;
	if (p->gso_size && rest > p->gso_size)
		return 0; /* still a super-packet: the kernel sums its segments */
	if (bpf_skb_change_tail(p, p->len, 0)) /* also ends GSO, which the kernel refuses for one segment */
		return -1;
	return checksum_whole(p);
}

#endif
