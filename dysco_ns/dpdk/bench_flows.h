/* SPDX-License-Identifier: Apache-2.0 */
/* The sessions of the benchmark, as a client and its server would have them, and the frames that they send. */
#ifndef DYSCO_DPDK_BENCH_FLOWS_H
#define DYSCO_DPDK_BENCH_FLOWS_H
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_random.h>

#include "wire.h"

enum { SYN_HEADER = 40, FLOWS_OF_A_PORT = 10000, FIRST_SERVER_PORT = 5000, FIRST_CLIENT_PORT = 30000, FRAME_FCS = 4 };

/* One session: as the local stack knows it and as it is on the wire, both as this host sends. */
struct flow {
	struct five_tuple local, wire;
	u32 sent, received;     /* sequence numbers, host order */
};

INLINE be32 address(u32 a, u32 b, u32 c, u32 d) { return be32_of(a << 24 | b << 16 | c << 8 | d); }

INLINE void flow_make(struct flow *f, u32 i)
{
	f->local = (struct five_tuple){ address(10, 0, 0, 1), address(10, 9, 0, 2), be16_of(FIRST_CLIENT_PORT + i % FLOWS_OF_A_PORT),
					be16_of(FIRST_SERVER_PORT + i / FLOWS_OF_A_PORT) };
	f->sent = (u32)rte_rand();
	f->received = (u32)rte_rand();
}

/* What a frame shall say. */
struct wanted {
	struct five_tuple tuple;
	u32 seq, ack, flags;
	u32 bytes;              /* of the frame, without its FCS */
	u16 id;                 /* of the IP header, which no agent changes: by it the frame is known again */
	const u8 *options;      /* 20 bytes of a SYN, or 0 */
};

INLINE void frame_write(struct rte_mbuf *m, const struct wanted *w)
{
	u32 header = w->options ? SYN_HEADER : 20;

	m->data_len = 0;
	m->pkt_len = 0;
	u8 *data = (u8 *)rte_pktmbuf_append(m, (u16)w->bytes);
	struct wire_ethernet *ethernet = (struct wire_ethernet *)data;
	struct wire_ip *ip = (struct wire_ip *)(ethernet + 1);
	struct wire_tcp *tcp = (struct wire_tcp *)(ip + 1);
	*ethernet = (struct wire_ethernet){ { 2, 0, 0, 0, 0, 9 }, { 2, 0, 0, 0, 0, 1 }, be16_of(ETHERTYPE_IPV4) };
	*ip = (struct wire_ip){ 0x45, 0, be16_of(w->bytes - AT_IP), be16_of(w->id), be16_of(0x4000), 64, PROTOCOL_TCP, 0, w->tuple.src, w->tuple.dst };
	*tcp = (struct wire_tcp){ w->tuple.sport, w->tuple.dport, be32_of(w->seq), be32_of(w->ack), (u8)(header << 2), (u8)w->flags,
				  be16_of(4096), 0, 0 };
	memset(tcp + 1, 0x55, w->bytes - AT_OPTIONS);
	if (w->options)
		memcpy(tcp + 1, w->options, SYN_HEADER - 20);
	ip->checksum = rte_ipv4_cksum((struct rte_ipv4_hdr *)(void *)ip);
	tcp->checksum = rte_ipv4_udptcp_cksum((struct rte_ipv4_hdr *)(void *)ip, tcp);
}

/* Five-tuple of a frame. */
INLINE struct five_tuple frame_tuple(const struct rte_mbuf *m)
{
	struct five_tuple t;

	memcpy(&t, rte_pktmbuf_mtod_offset(m, u8 *, AT_IP + 12), sizeof(t));
	return t;
}

INLINE u32 frame_id(const struct rte_mbuf *m)
{
	return be16_of(rte_pktmbuf_mtod_offset(m, const struct wire_ip *, AT_IP)->id);
}

/* Whether DPDK finds both checksums right. */
INLINE int frame_right(const struct rte_mbuf *m)
{
	const struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod_offset(m, const struct rte_ipv4_hdr *, AT_IP);

	u32 sum = rte_ipv4_phdr_cksum(ip, 0) + rte_raw_cksum(ip + 1, rte_be_to_cpu_16(ip->total_length) - sizeof(*ip));

	return rte_raw_cksum(ip, sizeof(*ip)) == 0xffff && (u16)(sum + (sum >> 16)) == 0xffff;
}

#endif
