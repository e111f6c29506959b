/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The tag of a SYN as a TCP option (paper IV-A), for middleboxes that take packets to user space: there the kernel's mark is
 * lost.  It is appended when the SYN has arrived and taken out when it leaves: never on the wire.
 */
#ifndef DYSCO_TAG_H
#define DYSCO_TAG_H
#include "segment.h"

enum { TAG_BYTES = 8, TAG_OPTION = 0x0101fd06 }; /* two NOPs, kind 253, length 6; then the number */

/* Appends the option to the header in scratch of a SYN without payload; segment_write comes next.  A header without room
 * goes without: < 0. */
NOINLINE int tag_append(struct packet *p, u32 number)
{
	struct scratch *x = port_scratch();

	if (!p || !x)
		return -1;
	struct segment *s = &x->segment;
	u32 header = s->header;
	KEEP(header);
	if (header < 20 || header > MAX_HEADER - TAG_BYTES || port_resize(p, AT_TCP + header + TAG_BYTES)) {
		port_count(COUNT_NO_ROOM_FOR_TAG);
		return -1;
	}
	store32(&s->new[header & 63], TAG_OPTION);
	store32(&s->new[(header + 4) & 63], number);
	segment_tcp(s)->data_offset = (u8)((header + TAG_BYTES) << 2);
	s->header = header + TAG_BYTES;
	return 0;
}

/* The session of a SYN that carries our tag, 0: none.  Takes the tag out of the header in scratch: off its end, or by NOPs
 * if a middlebox has put something behind it. */
INLINE u64 tag_take(struct segment *s)
{
	u32 at = s->tag_at;
	u64 nonce = at >= 20 && at <= 54 ? port_tagged(s->tag) : 0;

	if (!nonce)
		return 0;
	if (at + 6 == s->header && at >= 22 && load32(&s->old[(at - 2) & 63]) == TAG_OPTION) {
		store32(&s->new[(at - 2) & 63], 0);
		store32(&s->new[(at + 2) & 63], 0);
		s->header -= TAG_BYTES;
		segment_tcp(s)->data_offset = (u8)(s->header << 2);
	} else {
		for (u32 i = 0; i < 6; i++)
			s->new[(at + i) & 63] = OPTION_NOP;
	}
	return nonce;
}

#endif
