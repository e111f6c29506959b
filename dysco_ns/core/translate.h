/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The steady state: one segment of an established session, rewritten in place (paper IV-B). */
#ifndef DYSCO_TRANSLATE_H
#define DYSCO_TRANSLATE_H
#include "segment.h"

/* Where the headers of a packet lie.  Pointers die at the next call of a port function. */
struct headers {
	struct wire_ethernet *ethernet;
	struct wire_ip *ip;
	struct wire_tcp *tcp;
	void *end;
};

INLINE int headers_at(struct packet *p, struct headers *h)
{
	h->ethernet = port_data(p);
	h->end = port_data_end(p);
	h->ip = (void *)(h->ethernet + 1);
	h->tcp = (void *)(h->ip + 1);
	return (void *)(h->tcp + 1) > h->end ? -1 : 0;
}

/* Finds the headers of an unfragmented IPv4/TCP packet; < 0: not one, pass it. */
INLINE int headers_find(struct packet *p, struct headers *h)
{
	if (headers_at(p, h) < 0) {
		struct wire_ethernet *ethernet = port_data(p);
		if ((void *)(ethernet + 1) > port_data_end(p) || ethernet->type != be16_of(ETHERTYPE_IPV4))
			return -1;
		if (port_pull(p, AT_OPTIONS) || headers_at(p, h) < 0)
			return -1;
	}
	if (h->ethernet->type != be16_of(ETHERTYPE_IPV4) || h->ip->protocol != PROTOCOL_TCP)
		return -1;
	if (h->ip->version_length != 0x45) {
		port_count(COUNT_PASS_IP_OPTIONS);
		return -1;
	}
	if (h->ip->fragment & be16_of(0x3fff)) {
		port_count(COUNT_PASS_FRAGMENT);
		return -1;
	}
	return 0;
}

INLINE struct five_tuple headers_tuple(const struct headers *h)
{
	struct five_tuple t = { h->ip->src, h->ip->dst, h->tcp->sport, h->tcp->dport };
	return t;
}

/* The aligned timestamp option, or 0 if the header has none there. */
INLINE be32 *aligned_timestamp(const struct headers *h)
{
	be32 *option = (be32 *)(h->tcp + 1);

	if (h->tcp->data_offset < 0x80 || (void *)(option + 3) > h->end || option[0] != ALIGNED_TIMESTAMP)
		return 0;
	return option + 1;
}

/* A beta told once more, when all has settled.  It ends here: only an anchor's entries have deltas, those of the middleboxes
 * on a new path have none. */
INLINE int told_late(const struct segment *s, const struct entry *e) { return s->told && e->flags & ENTRY_OPTIONS; }

/* For options beyond the aligned timestamp (SACK blocks, odd layouts) when there are deltas. */
NOINLINE int translate_options(struct packet *p, struct entry *e)
{
	struct scratch *x = port_scratch();

	if (!x || !p || !e || segment_read(p) || told_late(&x->segment, e))
		return -1;
	segment_translate(&x->segment, &e->to);
	return segment_write(p);
}

INLINE u32 moved(u32 word, u32 delta, u64 *sum)
{
	u32 new = be32_of(be32_of(word) + delta);
	sum_replace32(sum, word, new);
	return new;
}

/* Rewrites the segment at h and notes what it carried; `arriving` says in which sequence space the entry looks. */
INLINE int translate(struct packet *p, struct headers *h, struct entry *e, int arriving)
{
	struct wire_ip *ip = h->ip;
	struct wire_tcp *tcp = h->tcp;
	const struct translation *to = &e->to;
	struct checksum_change change = {};
	be32 *timestamp = aligned_timestamp(h);
	u32 payload = be16_of(ip->total_length) - 20 - tcp_header_length(tcp);
	u32 seq = be32_of(tcp->seq), ack = be32_of(tcp->ack), window = be16_of(tcp->window);
	u32 length = payload + !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN);
	u32 end_here = seq + length + (arriving ? to->seq_delta : 0), ack_here = ack + (arriving ? to->ack_delta : 0);

	if (credible(&e->seen, end_here, tcp->flags, ack_here)) {
		see(&e->seen, end_here, length, tcp->flags, ack_here, arriving ? shift_window(window, to->window_shift) : window);
		if (timestamp)
			see_tsval(&e->seen, be32_of(timestamp[0]) + (arriving ? to->tsval_delta : 0));
	}
	e->packets++;
	e->bytes += payload;

	if (e->flags & ENTRY_OPTIONS && tcp->data_offset != 0x50 && (!timestamp || tcp->data_offset != 0x80))
		return translate_options(p, e);

	sum_replace32(&change.pseudo, ip->src, to->to.src);
	sum_replace32(&change.pseudo, ip->dst, to->to.dst);
	ip->src = to->to.src;
	ip->dst = to->to.dst;
	ip->checksum = checksum_apply(ip->checksum, change.pseudo);
	sum_replace16(&change.tcp, tcp->sport, to->to.sport);
	sum_replace16(&change.tcp, tcp->dport, to->to.dport);
	tcp->sport = to->to.sport;
	tcp->dport = to->to.dport;
	if (e->flags & ENTRY_OPTIONS) {
		tcp->seq = moved(tcp->seq, to->seq_delta, &change.tcp);
		if (tcp->flags & TCP_ACK)
			tcp->ack = moved(tcp->ack, to->ack_delta, &change.tcp);
		if (to->window_shift) {
			be16 shifted = be16_of(shift_window(window, to->window_shift));
			sum_replace16(&change.tcp, tcp->window, shifted);
			tcp->window = shifted;
		}
		if (timestamp) {
			timestamp[0] = moved(timestamp[0], to->tsval_delta, &change.tcp);
			timestamp[1] = moved(timestamp[1], to->tsecr_delta, &change.tcp);
		}
	}
	port_checksum_at(p, &tcp->checksum, &change);
	return 0;
}

#endif
