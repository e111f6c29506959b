/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Headers on the wire, and the first look at a packet. */
#ifndef DYSCO_WIRE_H
#define DYSCO_WIRE_H
#include "types.h"

struct wire_ethernet {
	u8 destination[6], source[6];
	be16 type;
};

struct wire_ip {
	u8 version_length, tos;
	be16 total_length, id, fragment;
	u8 ttl, protocol;
	u16 checksum;
	be32 src, dst;
};

struct wire_tcp {
	be16 sport, dport;
	be32 seq, ack;
	u8 data_offset, flags;
	be16 window;
	u16 checksum;
	be16 urgent;
};

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16, TCP_URG = 32, TCP_ECE = 64, TCP_CWR = 128 };
enum { OPTION_END, OPTION_NOP, OPTION_MSS, OPTION_WINDOW_SCALE, OPTION_SACK_PERMITTED, OPTION_SACK,
       OPTION_TIMESTAMP = 8, OPTION_MD5 = 19, OPTION_AO = 29, OPTION_MPTCP, OPTION_TAG = 253, OPTION_CONTROL = 254 };

enum {
	AT_IP = sizeof(struct wire_ethernet),
	AT_TCP = AT_IP + sizeof(struct wire_ip),
	AT_OPTIONS = AT_TCP + sizeof(struct wire_tcp),
	AT_TCP_CHECKSUM = AT_TCP + 16,
	IP_TCP_BYTES = sizeof(struct wire_ip) + sizeof(struct wire_tcp),
};
_Static_assert(AT_OPTIONS == 54, "Ethernet, IPv4 without options, TCP");

#define ETHERTYPE_IPV4 0x0800
#define PROTOCOL_TCP 6
#define ALIGNED_TIMESTAMP be32_of(0x0101080a) /* NOP NOP kind 8 length 10: how every stack writes it */
#define CONTROL_OPTION be32_of(0xfe044459)    /* kind 254, length 4, experiment id "DY" (RFC 6994) */
#define BETA_OPTION 0xfe0c4459                /* the same with 4 bytes of beta and 4 of transaction id */
enum { BETA_OPTION_BYTES = 12 };

INLINE u32 tcp_header_length(const struct wire_tcp *tcp) { return (u32)(tcp->data_offset >> 4) * 4; }

INLINE struct five_tuple reversed(const struct five_tuple *t)
{
	struct five_tuple r = { t->dst, t->src, t->dport, t->sport };
	return r;
}

/* Port 0 is nobody's; in our records it means that there is no subsession. */
INLINE int has_ports(const struct five_tuple *t) { return t->sport && t->dport; }

INLINE int same_tuple(const struct five_tuple *a, const struct five_tuple *b)
{
	return a->src == b->src && a->dst == b->dst && a->sport == b->sport && a->dport == b->dport;
}

#endif
