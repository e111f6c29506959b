/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Segments that the core itself writes: control segments and the new path's handshake. */
#ifndef DYSCO_FRAME_H
#define DYSCO_FRAME_H
#include "message.h"
#include "segment.h"

enum { DSCP_CS6 = 0xc0, FRAME_TTL = 64 };

struct frame_header {
	struct five_tuple tuple;
	u32 seq, ack, flags, window;
};

/* Starts a frame: IP and TCP header without options. */
INLINE void frame_start(struct scratch *x, const struct frame_header *f)
{
	struct wire_ip *ip = (void *)(x->frame + FRAME_IP);
	struct wire_tcp *tcp = (void *)(x->frame + FRAME_TCP);

	__builtin_memset(x->frame, 0, sizeof(x->frame));
	ip->version_length = 0x45;
	ip->tos = DSCP_CS6;
	ip->fragment = be16_of(0x4000);
	ip->ttl = FRAME_TTL;
	ip->protocol = PROTOCOL_TCP;
	ip->src = f->tuple.src;
	ip->dst = f->tuple.dst;
	tcp->sport = f->tuple.sport;
	tcp->dport = f->tuple.dport;
	tcp->seq = be32_of(f->seq);
	tcp->ack = be32_of(f->ack);
	tcp->flags = (u8)f->flags;
	tcp->window = be16_of(f->window);
	tcp->data_offset = 0x50;
}

/* The option that marks a control segment. */
INLINE void frame_control_option(struct scratch *x)
{
	struct wire_tcp *tcp = (void *)(x->frame + FRAME_TCP);

	*(be32 *)(tcp + 1) = CONTROL_OPTION;
	tcp->data_offset = 0x60;
}

/* The options of a SYN or SYN-ACK of a new path: what the session negotiated (docs/protocol.md).  20 bytes, in fixed
 * places; what was not negotiated is NOPs. */
INLINE void frame_syn_options(struct scratch *x, const struct offer *offer, u32 tsval, u32 tsecr)
{
	struct wire_tcp *tcp = (void *)(x->frame + FRAME_TCP);
	u8 *o = (u8 *)(tcp + 1);
	u16 mss = offer->mss ? offer->mss : 536;

	__builtin_memset(o, OPTION_NOP, 20);
	o[0] = OPTION_MSS, o[1] = 4, o[2] = (u8)(mss >> 8), o[3] = (u8)mss;
	if (offer->has & OFFER_SACK)
		o[4] = OPTION_SACK_PERMITTED, o[5] = 2;
	if (offer->has & OFFER_TIMESTAMP) {
		o[6] = OPTION_TIMESTAMP, o[7] = 10;
		store32(o + 8, tsval);
		store32(o + 12, tsecr);
	}
	if (offer->has & OFFER_WINDOW_SCALE)
		o[17] = OPTION_WINDOW_SCALE, o[18] = 3, o[19] = offer->window_scale;
	if (offer->has & OFFER_ECN) /* RFC 3168 6.1.1 */
		tcp->flags |= (u8)(TCP_ECE | (tcp->flags & TCP_ACK ? 0 : TCP_CWR));
	tcp->data_offset = 0xa0;
}

INLINE void frame_timestamp(struct scratch *x, u32 tsval, u32 tsecr)
{
	struct wire_tcp *tcp = (void *)(x->frame + FRAME_TCP);
	u8 *o = (u8 *)(tcp + 1);

	*(be32 *)o = ALIGNED_TIMESTAMP;
	store32(o + 4, tsval);
	store32(o + 8, tsecr);
	tcp->data_offset = 0x80;
}

/* Appends n bytes of message, fills in lengths and checksums, and puts the frame into the packet in hand. */
NOINLINE int frame_finish(struct packet *p, u32 n)
{
	struct scratch *x = port_scratch();

	if (!x || !p || n > MAX_MESSAGE + SIGNATURE_BYTES)
		return -1;
	struct wire_ip *ip = (void *)(x->frame + FRAME_IP);
	struct wire_tcp *tcp = (void *)(x->frame + FRAME_TCP);
	u32 header = tcp_header_length(tcp);
	u32 total = 20 + header + n;
	ip->total_length = be16_of(total);
	ip->checksum = (u16)~fold16(port_sum(ip, 20, 0));
	u64 pseudo = (u64)ip->src + ip->dst + be16_of(PROTOCOL_TCP) + be16_of(header + n);
	u32 sum = port_sum(tcp, 60, fold32(pseudo));
	if (n) {
		KEEP(n);
		if (n > MAX_MESSAGE + SIGNATURE_BYTES)
			return -1;
		for (u32 i = 0; i < 4; i++)
			x->message[n + i] = 0;
		sum = port_sum(x->message, (n + 3) & ~3u, sum);
	}
	tcp->checksum = (u16)~fold16(sum);
	if (port_resize(p, AT_IP + total)) {
		port_count(COUNT_DROP_RESIZE);
		return -1;
	}
	KEEP(header);
	if (header < 20 || header > 60 || port_store(p, AT_IP, x->frame + FRAME_IP, 20 + header))
		return -1;
	KEEP(n);
	if (n < 1 || n > MAX_MESSAGE + SIGNATURE_BYTES)
		return 0;
	return port_store(p, AT_TCP + header, x->message, n);
}

#endif
