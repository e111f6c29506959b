/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Port functions of packets that lie in ordinary memory in one piece, with whole checksums.  A backend defines
 * port_data() and port_length() first.
 */
#ifndef DYSCO_HOST_LINEAR_H
#define DYSCO_HOST_LINEAR_H
#include <string.h>

#include "checksum.h"
#include "scratch.h"

INLINE int port_load(struct packet *p, u32 at, void *to, u32 n)
{
	if (at > port_length(p) || n > port_length(p) - at)
		return -1;
	memcpy(to, (u8 *)port_data(p) + at, n);
	return 0;
}
INLINE int port_store(struct packet *p, u32 at, const void *from, u32 n)
{
	if (at > port_length(p) || n > port_length(p) - at)
		return -1;
	memcpy((u8 *)port_data(p) + at, from, n);
	return 0;
}

INLINE void port_checksum_at(struct packet *p, u16 *field, const struct checksum_change *change)
{
	(void)p;
	*field = checksum_apply(*field, (u64)fold32(change->pseudo) + fold32(change->tcp));
}
INLINE void port_checksum(struct packet *p, u64 pseudo, u64 tcp)
{
	struct checksum_change change = { pseudo, tcp };
	u16 field;

	memcpy(&field, (u8 *)port_data(p) + AT_TCP_CHECKSUM, 2);
	port_checksum_at(p, &field, &change);
	memcpy((u8 *)port_data(p) + AT_TCP_CHECKSUM, &field, 2);
}
INLINE u32 port_sum(const void *from, u32 n, u32 seed)
{
	const u8 *bytes = from;
	u64 sum = seed;

	for (u32 i = 0; i + 1 < n; i += 2)
		sum += (u32)bytes[i] | (u32)bytes[i + 1] << 8;
	if (n & 1)
		sum += bytes[n - 1];
	return fold32(sum);
}
INLINE u64 port_sum_change(const u8 *old, const u8 *new)
{
	return (u64)port_sum(new, 64, 0) + (u32)~port_sum(old, 64, 0);
}

/* Sums a segment anew. */
static void checksum_anew(struct packet *p)
{
	struct wire_ip *ip = (struct wire_ip *)((u8 *)port_data(p) + AT_IP);
	struct wire_tcp *tcp = (struct wire_tcp *)(ip + 1);
	u32 bytes = port_length(p) - AT_TCP;

	ip->total_length = be16_of(20 + bytes);
	ip->checksum = 0;
	ip->checksum = (u16)~fold16(port_sum(ip, 20, 0));
	tcp->checksum = 0;
	u64 pseudo = (u64)ip->src + ip->dst + be16_of(PROTOCOL_TCP) + be16_of(bytes);
	tcp->checksum = (u16)~fold16(port_sum(tcp, bytes, fold32(pseudo)));
}

/* Makes a copy of the packet in hand the piece that an emission describes; returns the length that it must get. */
static u32 piece_shape(struct packet *piece, const struct emission *m)
{
	u8 *data = port_data(piece);
	struct wire_ip *ip = (struct wire_ip *)(data + AT_IP);

	memmove(data + AT_TCP + m->header, data + AT_TCP + m->header + m->from, m->length);
	memcpy(data + AT_TCP, m->new, m->header);
	ip->src = m->to.src;
	ip->dst = m->to.dst;
	return AT_TCP + m->header + m->length;
}

#endif
