/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The slow path's view of a segment: headers copied out, changed in the copy, written back in one piece. */
#ifndef DYSCO_SEGMENT_H
#define DYSCO_SEGMENT_H
#include "scratch.h"
#include "sequence.h"

INLINE u32 load32(const u8 *p)
{
	u32 v;
	__builtin_memcpy(&v, p, 4);
	return be32_of(v);
}

INLINE void store32(u8 *p, u32 v)
{
	v = be32_of(v);
	__builtin_memcpy(p, &v, 4);
}

/* A window field under another scale factor, no more than the field can hold. */
INLINE u32 shift_window(u32 window, s32 shift)
{
	u32 shifted = shift >= 0 ? window << (shift & 15) : window >> (-shift & 15);
	return shifted > 65535 ? 65535 : shifted;
}

INLINE struct wire_tcp *segment_tcp(struct segment *s) { return (struct wire_tcp *)s->new; }

/* One option at s->old[at]; returns its length, 0 at the end or when it is malformed. */
INLINE u32 segment_option(struct segment *s, u32 at)
{
	u32 kind = s->old[at & 63], length = s->old[(at + 1) & 63];

	if (kind == OPTION_END)
		return 0;
	if (kind == OPTION_NOP)
		return 1;
	if (length < 2 || at + length > s->header)
		return 0;
	if (kind == OPTION_TIMESTAMP && length == 10 && at <= 50) {
		s->timestamp_at = at + 2;
		s->tsval = load32(&s->old[(at + 2) & 63]);
		s->tsecr = load32(&s->old[(at + 6) & 63]);
	} else if (kind == OPTION_SACK && length >= 10) {
		s->sack_at = at + 2;
		s->sack_blocks = (length - 2) / 8;
	} else if (kind == OPTION_MSS && length == 4) {
		s->offer.mss = (u16)((s->old[(at + 2) & 63] << 8) | s->old[(at + 3) & 63]);
	} else if (kind == OPTION_WINDOW_SCALE && length == 3) {
		u8 scale = s->old[(at + 2) & 63];
		s->offer.window_scale = scale > 14 ? 14 : scale;
		s->offer.has |= OFFER_WINDOW_SCALE;
	} else if (kind == OPTION_SACK_PERMITTED && length == 2) {
		s->offer.has |= OFFER_SACK;
	} else if (kind == OPTION_MD5 || kind == OPTION_AO) {
		s->offer.has |= OFFER_AUTHENTICATED;
	} else if (kind == OPTION_MPTCP) {
		s->offer.has |= OFFER_MULTIPATH;
	} else if (kind == OPTION_CONTROL && length == BETA_OPTION_BYTES && at <= 48) {
		s->told = load32(&s->old[at & 63]) == BETA_OPTION ? load32(&s->old[(at + 8) & 63]) : 0;
		s->beta = load32(&s->old[(at + 4) & 63]);
	} else if (kind == OPTION_TAG && length == 6 && at <= 54) {
		s->tag_at = at;
		s->tag = load32(&s->old[(at + 2) & 63]);
	}
	return length;
}

/* One turn of the walk; non-zero ends it. */
static long segment_option_turn(u32 turn, void *context)
{
	struct scratch *x = port_scratch();

	(void)turn;
	(void)context;
	if (!x || x->segment.walk_at >= x->segment.header)
		return 1;
	u32 at = x->segment.walk_at & 63, length = segment_option(&x->segment, at);
	x->segment.walk_at = at + length;
	return !length || at + length > 60;
}

/* The options of a SYN and of a segment as Linux writes them, without the walk, which costs more than all the rest of
 * segment_read().  0: laid out in another way. */
INLINE int segment_usual_options(struct segment *s)
{
	const u8 *o = s->old;

	if (s->header == 32 && load32(o + 20) == 0x0101080a) {
		segment_option(s, 22);
		return 1;
	}
	if (s->header != 40 || load32(o + 20) >> 16 != 0x0204 || load32(o + 24) != 0x0402080a || load32(o + 36) >> 8 != 0x010303)
		return 0;
	segment_option(s, 20);
	segment_option(s, 24);
	segment_option(s, 26);
	segment_option(s, 37);
	return 1;
}

/* Copies the headers into scratch and finds the options.  Returns < 0 for a truncated segment. */
NOINLINE int segment_read(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct wire_ip ip;

	if (!x || !p)
		return -1;
	struct segment *s = &x->segment;
	if (port_load(p, AT_IP, &ip, sizeof(ip)) || port_load(p, AT_TCP, s->old, 20))
		return -1;
	struct wire_tcp *tcp = (struct wire_tcp *)s->old;
	u32 header = tcp_header_length(tcp), total = be16_of(ip.total_length);
	if (header < 20 || header > MAX_HEADER || total < 20 + header)
		return -1;
	__builtin_memset(s->old + 20, 0, 44);
	if (header > 20) {
		u32 options = header - 20;
		KEEP(options);
		if (options < 4 || options > 40 || port_load(p, AT_OPTIONS, s->old + 20, options))
			return -1;
	}
	s->header = header;
	s->payload = s->new_payload = total - 20 - header;
	s->flags = tcp->flags;
	s->length = s->payload + !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN);
	s->seq = be32_of(tcp->seq);
	s->ack = be32_of(tcp->ack);
	s->window = be16_of(tcp->window);
	s->old_src = s->new_src = ip.src;
	s->old_dst = s->new_dst = ip.dst;
	s->payload_change = 0;
	s->timestamp_at = s->tsval = s->tsecr = s->sack_at = s->sack_blocks = s->told = s->tag_at = 0;
	__builtin_memset(&s->offer, 0, sizeof(s->offer));
	s->walk_at = 20;
	if (header > 20 && !segment_usual_options(s))
		port_loop(40, segment_option_turn, 0);
	s->offer.isn = s->seq;
	s->offer.tsval = s->tsval;
	s->offer.has |= OFFER_SEEN | (s->timestamp_at ? OFFER_TIMESTAMP : 0) | (tcp->flags & TCP_ECE ? OFFER_ECN : 0);
	__builtin_memcpy(s->new, s->old, sizeof(s->new));
	return 0;
}

/* What begins `by` bytes further on: it no longer says that the window has been reduced, its urgent data is so much nearer. */
INLINE void header_advance(u8 *header, u32 by)
{
	struct wire_tcp *tcp = (struct wire_tcp *)header;
	u32 urgent = be16_of(tcp->urgent);

	tcp->flags &= (u8)~TCP_CWR;
	if (!(tcp->flags & TCP_URG))
		return;
	if (urgent <= by)
		tcp->flags &= (u8)~TCP_URG;
	tcp->urgent = urgent <= by ? 0 : be16_of(urgent - by);
}

INLINE void segment_set_tuple(struct segment *s, const struct five_tuple *t)
{
	struct wire_tcp *tcp = segment_tcp(s);

	s->new_src = t->src;
	s->new_dst = t->dst;
	tcp->sport = t->sport;
	tcp->dport = t->dport;
}

INLINE void segment_set_timestamp(struct segment *s, u32 tsval, u32 tsecr)
{
	u32 at = s->timestamp_at;

	if (at < 20 || at > 52)
		return;
	store32(&s->new[at & 63], tsval);
	store32(&s->new[(at + 4) & 63], tsecr);
}

/* Which SACK blocks may be shown: what lies in [from, to), but none that begins at `hide`.  Before the delta. */
struct sack_bounds {
	u32 bounded, from, to, hide;
};

/* Adds `delta` to the SACK blocks and keeps of them what the bounds allow; what is empty becomes NOPs. */
INLINE void segment_clip_sack(struct segment *s, u32 delta, struct sack_bounds bounds)
{
	u32 at = s->sack_at, kept = 0;

	if (at < 22)
		return;
	for (u32 i = 0; i < 4; i++) {
		u32 block = at + 8 * i;
		if (i >= s->sack_blocks || block > 56)
			break;
		u32 left = load32(&s->old[block & 63]), right = load32(&s->old[(block + 4) & 63]);
		if (bounds.bounded) {
			left = seq_max(left, bounds.from);
			right = seq_min(right, bounds.to);
		}
		if (!seq_before(left, right) || (bounds.bounded && left == bounds.hide))
			continue;
		store32(&s->new[(at + 8 * kept) & 63], left + delta);
		store32(&s->new[(at + 8 * kept + 4) & 63], right + delta);
		kept++;
	}
	if (kept) {
		s->new[(at - 1) & 63] = (u8)(2 + 8 * kept);
	} else {
		s->new[(at - 2) & 63] = OPTION_NOP;
		s->new[(at - 1) & 63] = OPTION_NOP;
	}
	for (u32 i = 0; i < 4; i++) { /* what the kept blocks no longer fill */
		u32 block = at + 8 * i;
		if (i >= s->sack_blocks || block > 56)
			break;
		if (i >= kept) {
			store32(&s->new[block & 63], 0x01010101);
			store32(&s->new[(block + 4) & 63], 0x01010101);
		}
	}
}

/* Writes the changed header copy back and mends both checksums. */
NOINLINE int segment_write(struct packet *p)
{
	struct scratch *x = port_scratch();
	struct wire_ip ip;

	if (!x || !p)
		return -1;
	struct segment *s = &x->segment;
	u32 header = s->header;
	KEEP(header);
	if (header < 20 || header > MAX_HEADER || port_load(p, AT_IP, &ip, sizeof(ip)))
		return -1;
	u64 pseudo = 0;
	sum_replace32(&pseudo, s->old_src, s->new_src);
	sum_replace32(&pseudo, s->old_dst, s->new_dst);
	u64 ip_change = pseudo;
	be16 total = be16_of(20 + header + s->new_payload);
	sum_replace16(&ip_change, ip.total_length, total);
	sum_replace16(&pseudo, be16_of(be16_of(ip.total_length) - 20), be16_of(header + s->new_payload));
	ip.src = s->new_src;
	ip.dst = s->new_dst;
	ip.total_length = total;
	ip.checksum = checksum_apply(ip.checksum, ip_change);
	u64 change = port_sum_change(s->old, s->new) + s->payload_change;
	if (port_store(p, AT_IP, &ip, sizeof(ip)) || port_store(p, AT_TCP, s->new, header))
		return -1;
	port_checksum(p, pseudo, change);
	return 0;
}

INLINE struct five_tuple segment_tuple(const struct segment *s)
{
	const struct wire_tcp *tcp = (const struct wire_tcp *)s->old;
	struct five_tuple t = { s->old_src, s->old_dst, tcp->sport, tcp->dport };
	return t;
}

/* Applies a fixed translation: the same as translate(), for segments whose options need a walk. */
INLINE void segment_translate(struct segment *s, const struct translation *to)
{
	struct wire_tcp *tcp = segment_tcp(s);

	segment_set_tuple(s, &to->to);
	tcp->seq = be32_of(s->seq + to->seq_delta);
	if (s->flags & TCP_ACK)
		tcp->ack = be32_of(s->ack + to->ack_delta);
	if (!(s->flags & TCP_SYN))
		tcp->window = be16_of(shift_window(s->window, to->window_shift));
	segment_set_timestamp(s, s->tsval + to->tsval_delta, s->tsecr ? s->tsecr + to->tsecr_delta : 0);
	segment_clip_sack(s, to->ack_delta, (struct sack_bounds){ 0, 0, 0, 0 });
}

INLINE void see_tsval(struct seen *seen, u32 tsval)
{
	if (!(seen->has & SEEN_TSVAL) || seq_after(tsval, seen->tsval)) {
		seen->tsval = tsval;
		seen->has |= SEEN_TSVAL;
	}
}

/* While both paths of a reconfiguration live windows are told by the old one, and a sender may use what it allows before a
 * firewall on the new path has heard of it.  So there the field says this: wide open for firewalls, nothing to agents.  Sessions
 * without a window scale, where a host may mean it, say so in the new path's handshake only. */
enum { WINDOW_OPEN = 65535 };

/* Raises what an entry has seen by this segment, in the local session's sequence space. */
INLINE void see(struct seen *seen, u32 seq_end, u32 length, u32 flags, u32 ack, u32 window)
{
	if (length && (!(seen->has & SEEN_SEQ) || seq_after(seq_end, seen->seq_high))) {
		seen->seq_high = seq_end;
		seen->has |= SEEN_SEQ;
	}
	if (flags & TCP_ACK && (!(seen->has & SEEN_ACK) || !seq_before(ack, seen->ack))) {
		seen->ack = ack;
		if (window == WINDOW_OPEN && seen->has & SEEN_ACK)
			return; /* on a new path: the window that was known goes on */
		seen->window = (u16)window;
		seen->has = (seen->has & ~(u32)SEEN_UNSCALED) | SEEN_ACK | (flags & TCP_SYN ? SEEN_UNSCALED : 0);
	}
}

/* Whether the numbers of a segment may be the sender's, as far as an entry alone can tell: anybody can send segments with numbers
 * that are guessed.  Bytes that have got lost come again, so what follows is near in the end; acknowledgments do not: after
 * many were lost the next is far, and is believed when another comes from beside it. */
enum { FAR = 1 << 25 };

INLINE int is_far(u32 number, u32 known) { return number - known + FAR >= 2 * FAR; }

INLINE int credible(struct seen *seen, u32 seq_end, u32 flags, u32 ack)
{
	if (seen->has & SEEN_SEQ && is_far(seq_end, seen->seq_high))
		return 0;
	if (!(flags & TCP_ACK) || !(seen->has & SEEN_ACK) || !is_far(ack, seen->ack))
		return 1;
	u16 half = ack >> 16, beside = (u16)(half - seen->far) <= 1;
	seen->far = half;
	return beside;
}

/* The window as a segment without SYN would write it. */
INLINE u32 seen_window(const struct seen *seen, u32 scale)
{
	return seen->has & SEEN_UNSCALED ? seen->window >> (scale & 15) : seen->window;
}

#endif
