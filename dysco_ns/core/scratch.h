/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Working memory of one packet: too large for a stack of 512 bytes.  One per CPU; a packet that the core emits while
 * it handles another one uses only `emission`.
 */
#ifndef DYSCO_SCRATCH_H
#define DYSCO_SCRATCH_H
#include "checksum.h"
#include "sha256.h"
#include "wire.h"

/* A copy of a segment's headers, as it came and as it will go. */
struct segment {
	ALIGNED u8 old[64], new[64];    /* the TCP header; behind its end zeros */
	be32 old_src, old_dst, new_src, new_dst;
	u32 header;             /* bytes of the TCP header */
	u32 payload;            /* bytes */
	u32 new_payload;        /* bytes that it will carry: set by who resizes it */
	u32 payload_change;     /* what that does to the checksum */
	u32 length;             /* sequence space: payload, SYN and FIN */
	u32 seq, ack, window;   /* host order; window unscaled */
	u32 flags;              /* TCP flags */
	u32 timestamp_at;       /* offset of TSval in the header; 0: none */
	u32 tsval, tsecr;
	u32 sack_at, sack_blocks;
	u32 told, beta;         /* a beta told by an option, and by which reconfiguration: sessions without timestamps */
	u32 tag_at, tag;        /* of a SYN that a middlebox has passed on: where the tag's option is, 0: nowhere; its number */
	u32 walk_at;            /* where the walk over the options is */
	struct offer offer;     /* of a SYN */
};

/* One copy that leaves beside the packet itself: header in `new`, payload bytes from..to of the original. */
struct emission {
	struct five_tuple to;
	ALIGNED u8 old[64], new[64];
	u32 header, from, length;
	s32 grown;              /* by how much the header is longer than the original's */
	u32 payload;            /* of the original */
	u32 full_checksum;      /* sum everything anew: what is left of a GSO packet has no partial sum any more */
	u32 next_hop;
	u32 armed;
	u8 block[512];
};

/* The registers of the classic BPF machine of filter.h. */
struct filter_machine {
	u32 a, x, pc, matched;
	u32 memory[16];
};

/* What a set-up message lists after its fixed part. */
struct setup_lists {
	u32 chain_length;
	be32 chain[MAX_MIDDLEBOXES];
	u32 ends;               /* the last of them, or the receiver if there are none, ends the chain */
	struct new_path new_path;
};

/* What a session leaves behind that comes back to a middlebox by another path, setup.h. */
struct left_behind {
	u32 txid;               /* by which it had left; 0: it has not been here, or had not left */
	struct five_tuple graves[2];    /* ingress keys of the paths that it had: what is late on them is swallowed */
};

/* A pass over the session table, expiry.h. */
struct expiry_pass {
	u64 now, linger_ns, idle_ns, beat_ns;
	u64 forgotten;
};

struct scratch {
	struct sha256 sha;
	ALIGNED u8 message[264];        /* signed bytes, then the signature */
	u32 message_length;     /* without the signature */
	u32 message_signed;
	ALIGNED u8 frame[96];           /* headers of a segment to send; the IP header is at FRAME_IP */
	struct five_tuple control_to;   /* where the control message in `message` goes */
	struct segment segment;
	struct setup_lists lists;
	struct session session;
	struct entry entry;
	u64 reconfig[(sizeof(struct reconfig) + 7) / 8];        /* untyped: a spin lock may only lie in its map */
	u64 plan[16];           /* struct out_plan, twopaths.h */
	struct emission emission;
	struct command command;
	u8 view[132];           /* what a policy's filter sees, and room for a word that begins at its last byte */
	u32 view_length;
	struct filter_machine machine;
	struct expiry_pass expiry;
	struct left_behind behind;
};
enum { FRAME_IP = 16, FRAME_TCP = FRAME_IP + 20 };

#endif
