/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Signalling messages: their layout, and their signature.  docs/wire-format.md draws them.
 *
 * A message is a header, then (by its type) fixed fields or a list of type-length-value fields, then 32 bytes of
 * HMAC-SHA256 over all of it if it is signed.  Kept short: up to 55 bytes cost one SHA-256 block.
 */
#ifndef DYSCO_MESSAGE_H
#define DYSCO_MESSAGE_H
#include "reasons.h"
#include "scratch.h"

enum message_type {
	MESSAGE_SETUP = 1,      /* payload of a SYN; all others travel in segments with option 254 */
	MESSAGE_REQUEST_LOCK,
	MESSAGE_ACK_LOCK,
	MESSAGE_NACK_LOCK,
	MESSAGE_RELEASE,        /* left anchor: my cutoff, my state; asks for the right one's */
	MESSAGE_ACK_RELEASE,
	MESSAGE_CANCEL,
	MESSAGE_ACK_CANCEL,
	MESSAGE_TRIGGER,        /* a middlebox asks the agent on its left to remove it, a host that moves for a new path */
	MESSAGE_HEARTBEAT,      /* do you have this session still? */
	MESSAGE_ALIVE,          /* the answer; its reason says no */
};

enum {
	MESSAGE_MAGIC = 0x4459,
	MESSAGE_VERSION_IPV4 = 0x14,
	MESSAGE_SIGNED = 1,
	TLV_MUST_UNDERSTAND = 0x80,
	TLV_CHAIN = 0x81,           /* addresses of the middleboxes after the receiver */
	TLV_RECONFIGURATION = 0x82, /* handle and transaction: this SYN makes a new path */
	TLV_ENDS = 0x83,            /* the last middlebox ends the chain for a host without an agent; no value */
};

struct message_header {
	be16 magic;
	u8 version, type;
	be16 length;            /* of the whole message without its signature */
	u8 flags, key;
	u64 nonce;              /* of the session at the receiver */
};
_Static_assert(sizeof(struct message_header) == 16, "message_header");

struct setup_message {
	struct message_header header;
	struct five_tuple session;      /* as the sender knows it */
	struct five_tuple subsession;   /* as the sender sent it: another on arrival reveals a NAT */
};
_Static_assert(sizeof(struct setup_message) == 40, "setup_message");

enum control_flag {
	CONTROL_RIGHT_OF = 1,       /* right_anchor names the last middlebox to leave; it writes its neighbour there */
	CONTROL_CLOCKS = 2,         /* a spliced proxy is on the old path, with clocks of its own */
	CONTROL_DRAINED = 4,        /* the sender no longer needs the old path */
	CONTROL_BETA = 8,           /* beta holds: the sender's cutoff is fixed */
	CONTROL_BETA_KNOWN = 16,    /* the sender knows the receiver's beta */
	CONTROL_OVER = 32,          /* both anchors are drained: the old path may go */
	CONTROL_PARK = 64,          /* new data waits for the old path to drain and a middlebox's state to move */
	CONTROL_GO = 128,           /* it has moved */
};

struct control_message {
	struct message_header header;
	be32 txid;
	be32 left_anchor, right_anchor;
	be32 delta;                     /* gathered on the way, rightward by a request, leftward by its answer (paper III-D) */
	be32 to;                        /* the receiver's address, as the sender knows it: played to others it is void */
	u8 reason, flags;               /* enum refusal, enum control_flag */
	u8 hops, window_scale;          /* the sender's end host's */
	u64 handle;                     /* a question: the session's nonce at its sender, for the answer; ackLock: at the right anchor */
	be32 beta;                      /* in the lock handshake: what is added to timestamps on the old path */
};
enum { CONTROL_BYTES = 52 };

struct tlv_reconfiguration {
	u8 type, length;
	u8 window_scale;                /* of the session's offer at the left anchor; above it SESSION_FIN_... flags */
	u8 txid[4], handle[8];
};
_Static_assert(sizeof(struct setup_message) + sizeof(struct tlv_reconfiguration) == 55, "one SHA-256 block");

/* The domain of an agent. */
INLINE u32 domain_of(const struct config *config, be32 address)
{
	for (u32 i = 1; i < MAX_DOMAINS; i++)
		if (i < config->domains && (address & config->domain[i].mask) == config->domain[i].network)
			return i;
	return 0;
}

/* HMAC-SHA256 of x->message[0..length) with the key in slot `key`; the digest is left in x->sha.state.  The states after the two pad
 * blocks are prepared by the daemon, which saves two of five compressions. */
NOINLINE int message_digest(u32 length, u32 key)
{
	struct scratch *x = port_scratch();
	struct hmac_key *k = port_key(key);

	if (!x || !k || !k->valid || length < 1 || length > MAX_MESSAGE)
		return -1;
	u32 blocks = (length + 9 + 63) / 64, bits = (64 + length) * 8;
	KEEP(length);
	if (length > MAX_MESSAGE)
		return -1;
	x->message[length] = 0x80;
	__builtin_memset(&x->message[length + 1], 0, 72); /* to the end of the last block, and beyond */
	for (int i = 0; i < 8; i++)
		x->sha.state[i] = k->inner[i];
	for (u32 block = 0; block < 3; block++) {
		VARY(blocks, k->valid);
		if (block >= blocks)
			break;
		for (u32 i = 0; i < 16; i++)
			x->sha.w[i] = be32_of(((be32 *)x->message)[block * 16 + i]);
		if (block == blocks - 1)
			x->sha.w[15] = bits;
		sha256_block(&x->sha);
	}
	for (int i = 0; i < 8; i++) {
		x->sha.w[i] = x->sha.state[i];
		x->sha.state[i] = k->outer[i];
	}
	x->sha.w[8] = 0x80000000;
	for (int i = 9; i < 15; i++)
		x->sha.w[i] = 0;
	x->sha.w[15] = (64 + 32) * 8;
	sha256_block(&x->sha);
	return 0;
}

/* Signs the message of x->message_length bytes to an agent if its domain does; returns all its bytes or < 0. */
NOINLINE int message_sign(struct config *config, be32 to)
{
	struct scratch *x = port_scratch();

	if (!x || !config)
		return -1;
	u32 length = x->message_length, in = domain_of(config, to);
	struct domain domain = config->domain[in];
	struct message_header *header = (struct message_header *)x->message;
	header->magic = be16_of(MESSAGE_MAGIC);
	header->version = MESSAGE_VERSION_IPV4;
	header->length = be16_of(length);
	header->flags = domain.sign ? MESSAGE_SIGNED : 0;
	header->key = (u8)domain.key;
	if (!domain.sign)
		return (int)length;
	if (message_digest(length, in * MAX_KEYS + domain.key))
		return -1;
	KEEP(length);
	if (length < sizeof(*header) || length > MAX_MESSAGE)
		return -1;
	for (int i = 0; i < 8; i++)
		store32(&x->message[length + 4 * i], x->sha.state[i]);
	return (int)(length + SIGNATURE_BYTES);
}

/* Reads the payload at `at` of the segment in scratch and checks it.  Returns COUNT_NONE when it is a message of ours,
 * COUNT_PASS_FOREIGN_PAYLOAD when it is somebody else's data, and else why it must be dropped. */
NOINLINE int message_read(struct packet *p, u32 at, u32 bytes, struct config *config)
{
	struct scratch *x = port_scratch();

	if (!x || !p || !config || bytes < sizeof(struct message_header))
		return COUNT_PASS_FOREIGN_PAYLOAD;
	struct message_header *header = (struct message_header *)x->message;
	if (port_load(p, at, header, sizeof(*header)) || header->magic != be16_of(MESSAGE_MAGIC) ||
	    header->version != MESSAGE_VERSION_IPV4)
		return COUNT_PASS_FOREIGN_PAYLOAD;
	u32 length = be16_of(header->length);
	u32 signature = header->flags & MESSAGE_SIGNED ? SIGNATURE_BYTES : 0;
	if (length < sizeof(struct setup_message) || length > MAX_MESSAGE || bytes != length + signature)
		return COUNT_DROP_BAD_MESSAGE;
	KEEP(bytes);
	if (bytes < sizeof(struct setup_message) || bytes > MAX_MESSAGE + SIGNATURE_BYTES || port_load(p, at, x->message, bytes))
		return COUNT_DROP_BAD_MESSAGE;
	x->message_length = length;
	x->message_signed = signature;
	u32 in = domain_of(config, x->segment.old_src);
	if (!config->domain[in & (MAX_DOMAINS - 1)].sign)
		return signature ? COUNT_DROP_BAD_SIGNATURE : COUNT_NONE;
	if (!signature)
		return COUNT_DROP_UNSIGNED;
	u32 given[8];
	KEEP(length);
	if (length > MAX_MESSAGE)
		return COUNT_DROP_BAD_MESSAGE;
	for (int i = 0; i < 8; i++)
		given[i] = load32(&x->message[length + 4 * i]);
	if (message_digest(length, in * MAX_KEYS + (header->key & (MAX_KEYS - 1))))
		return COUNT_DROP_BAD_SIGNATURE;
	u32 wrong = 0; /* constant time */
	for (int i = 0; i < 8; i++)
		wrong |= given[i] ^ x->sha.state[i];
	return wrong ? COUNT_DROP_BAD_SIGNATURE : COUNT_NONE;
}

#endif
