/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The set-up message: written and read, put on a SYN and taken off it (docs/wire-format.md). */
#ifndef DYSCO_SETUP_MESSAGE_H
#define DYSCO_SETUP_MESSAGE_H
#include "message.h"
#include "segment.h"

enum { SETUP_LISTS = 4 };

/* Writes a set-up message with the lists in x->lists into scratch. */
INLINE void setup_message_write(struct scratch *x, u64 nonce, const struct five_tuple *session,
				const struct five_tuple *subsession)
{
	struct setup_message *m = (struct setup_message *)x->message;
	const struct setup_lists *l = &x->lists;
	u32 at = sizeof(*m);

	m->header.type = MESSAGE_SETUP;
	m->header.nonce = nonce;
	m->session = *session;
	m->subsession = *subsession;
	if (l->chain_length) {
		x->message[at] = TLV_CHAIN;
		x->message[at + 1] = (u8)(2 + 4 * l->chain_length);
		for (u32 i = 0; i < MAX_MIDDLEBOXES; i++)
			if (i < l->chain_length)
				__builtin_memcpy(&x->message[at + 2 + 4 * i], &l->chain[i], 4);
		at += 2 + 4 * l->chain_length;
	}
	KEEP(at);
	at &= 127;
	if (l->ends) {
		x->message[at] = TLV_ENDS;
		x->message[at + 1] = 2;
		at += 2;
	}
	if (l->new_path.txid) {
		x->message[at] = TLV_RECONFIGURATION;
		x->message[at + 1] = sizeof(struct tlv_reconfiguration);
		x->message[at + 2] = (u8)(l->new_path.window_scale | l->new_path.fins);
		store32(&x->message[at + 3], l->new_path.txid);
		store32(&x->message[at + 7], be32_of((u32)l->new_path.handle));
		store32(&x->message[at + 11], be32_of((u32)(l->new_path.handle >> 32)));
		at += sizeof(struct tlv_reconfiguration);
	}
	x->message_length = at;
}

/* What the right neighbour of a session is told: the middleboxes after itself, and of which new path it is part. */
INLINE void setup_lists_of(struct setup_lists *l, const struct session *s)
{
	l->chain_length = s->chain_length ? s->chain_length - 1 : 0;
	for (u32 i = 0; i < MAX_MIDDLEBOXES - 1; i++)
		l->chain[i] = s->chain[i + 1];
	l->ends = s->flags & SESSION_ENDS;
	l->new_path = s->new_path;
}

/* Extends the SYN in hand by the n bytes of message in scratch. */
NOINLINE int setup_attach(struct packet *p, u32 n)
{
	struct scratch *x = port_scratch();

	if (!x || !p)
		return -1;
	u32 length = AT_TCP + x->segment.header;
	KEEP(n);
	if (n < sizeof(struct setup_message) || n > MAX_MESSAGE + SIGNATURE_BYTES)
		return -1;
	for (int i = 0; i < 4; i++)
		x->message[(n + (u32)i) & 255] = 0;
	if (port_resize(p, length + n) || port_store(p, length, x->message, n)) {
		port_count(COUNT_DROP_RESIZE);
		return -1;
	}
	x->segment.new_payload = n;
	x->segment.payload_change = port_sum(x->message, (n + 3) & ~3u, 0);
	return 0;
}

/* Reads the lists of the set-up message in scratch into x->lists; < 0: malformed or not understood. */
NOINLINE int setup_message_lists(u32 length)
{
	struct scratch *x = port_scratch();

	if (!x)
		return -1;
	struct setup_lists *l = &x->lists;
	__builtin_memset(l, 0, sizeof(*l));
	u32 at = sizeof(struct setup_message);
	for (int i = 0; i < SETUP_LISTS; i++) {
		VARY(at, x->message_length);
		if (at >= length)
			return at == length ? 0 : -1;
		u32 type = x->message[at & 255], bytes = x->message[(at + 1) & 255];
		if (bytes < 2 || at + bytes > length)
			return -1;
		if (type == TLV_CHAIN) {
			u32 n = (bytes - 2) / 4;
			if (bytes != 2 + 4 * n || n > MAX_MIDDLEBOXES)
				return -1;
			for (u32 j = 0; j < MAX_MIDDLEBOXES; j++)
				if (j < n)
					l->chain[j] = be32_of(load32(&x->message[(at + 2 + 4 * j) & 255]));
			l->chain_length = n;
		} else if (type == TLV_RECONFIGURATION) {
			if (bytes != sizeof(struct tlv_reconfiguration))
				return -1;
			l->new_path.window_scale = x->message[(at + 2) & 255] & 15;
			l->new_path.fins = x->message[(at + 2) & 255] & SESSION_FINS;
			l->new_path.txid = load32(&x->message[(at + 3) & 255]);
			l->new_path.handle = (u64)be32_of(load32(&x->message[(at + 11) & 255])) << 32 |
				    be32_of(load32(&x->message[(at + 7) & 255]));
		} else if (type == TLV_ENDS && bytes == 2) {
			l->ends = 1;
		} else if (type & TLV_MUST_UNDERSTAND) {
			return -1;
		}
		at += bytes;
	}
	return at == length ? 0 : -1;
}

/* Cuts the message off the SYN in hand. */
NOINLINE int setup_detach(struct packet *p)
{
	struct scratch *x = port_scratch();

	if (!x || !p)
		return -1;
	u32 n = x->message_length + x->message_signed;
	u32 at = AT_TCP + x->segment.header;
	KEEP(n);
	if (n < sizeof(struct setup_message) || n > MAX_MESSAGE + SIGNATURE_BYTES || port_load(p, at, x->message, n))
		return -1;
	for (int i = 0; i < 4; i++)
		x->message[(n + (u32)i) & 255] = 0;
	if (port_resize(p, at)) {
		port_count(COUNT_DROP_RESIZE);
		return -1;
	}
	x->segment.new_payload = 0;
	x->segment.payload_change = ~port_sum(x->message, (n + 3) & ~3u, 0);
	return 0;
}

#endif
