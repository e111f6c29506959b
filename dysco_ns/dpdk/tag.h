/* SPDX-License-Identifier: Apache-2.0 */
/* How a SYN is recognised that a middlebox passes on under another five-tuple (paper IV-B).  A mark does not survive the
 * way into the kernel and back, so the SYN carries its session's nonce in an option (kind 253, RFC 6994) behind its
 * others while it is inside this host.
 */
#ifndef DYSCO_DPDK_TAG_H
#define DYSCO_DPDK_TAG_H
#include "mbuf_port.h"

struct tag_option {
	u32 id;
	u8 nonce[8];
};
#define TAG_OPTION be32_of(0xfd0c4459) /* kind 253, length 12, experiment id "DY" */

/* The TCP header of a frame that the core has read already, and its length. */
INLINE struct wire_tcp *tag_header(struct packet *p, u32 *header)
{
	struct wire_tcp *tcp = (struct wire_tcp *)((u8 *)port_data(p) + AT_TCP);

	*header = tcp_header_length(tcp);
	return tcp;
}

/* Takes the tag off a SYN that leaves; its nonce, 0: it has none. */
static u64 tag_take(struct packet *p)
{
	u32 header;
	struct wire_tcp *tcp = tag_header(p, &header);
	struct tag_option option;
	u64 nonce;

	if (header < 20 + sizeof(option) || port_length(p) != AT_TCP + header)
		return 0;
	if (port_load(p, AT_TCP + header - sizeof(option), &option, sizeof(option)) || option.id != TAG_OPTION)
		return 0;
	memcpy(&nonce, option.nonce, sizeof(nonce));
	tcp->data_offset = (u8)(tcp->data_offset - (sizeof(option) << 2));
	port_resize(p, AT_TCP + header - sizeof(option));
	checksum_anew(p);
	return nonce;
}

/* Puts it on a SYN that arrives.  One without room for it is recognised by its five-tuple alone. */
static void tag_put(struct packet *p, u64 nonce)
{
	u32 header;
	struct wire_tcp *tcp = tag_header(p, &header);
	struct tag_option option = { .id = TAG_OPTION };

	if (header + sizeof(option) > MAX_HEADER || port_length(p) != AT_TCP + header ||
	    port_resize(p, AT_TCP + header + sizeof(option)))
		return;
	memcpy(option.nonce, &nonce, sizeof(nonce));
	port_store(p, AT_TCP + header, &option, sizeof(option));
	tcp->data_offset = (u8)(tcp->data_offset + (sizeof(option) << 2));
	checksum_anew(p);
}

#endif
