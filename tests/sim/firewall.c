/* SPDX-License-Identifier: Apache-2.0 */
/* Strict firewalls on every link and in every middlebox: what they would call INVALID.
 *
 * Rules of van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001), as Linux' conntrack applies them without
 * be_liberal and without picking up connections in the middle.  For a segment of one side, `from`, to the other, `to`:
 *
 *   it begins no further right than the furthest window edge that `to` has shown,
 *   it ends no further left than `from` has already sent, less the largest window of `to`,
 *   it acknowledges no more than `to` has sent,
 *   and no less than that, less the largest window of `from` (or 66,000 bytes).
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { OLDEST_ACK = 66000 };

struct half {
	uint32_t isn, end, edge, largest, scale;        /* sent up to, furthest edge that it may use, largest window that it has offered */
	uint32_t can_scale;
};

enum life { NOBODY, ASKED, ANSWERED, GOING, RESET };

struct passage {
	uint32_t address[2];
	uint16_t port[2];
	uint8_t host, place;
	enum life life;
	uint32_t first;                         /* which half has opened it */
	struct half half[2], again;             /* again: as the last SYN said */
	uint32_t waits;                         /* for the answer to it */
};

static struct passage *passage_of(struct sim *s, int host, enum place place, const struct view *v, uint32_t *from)
{
	*from = v->src > v->dst || (v->src == v->dst && v->sport > v->dport);
	struct passage key = { .host = (uint8_t)host, .place = (uint8_t)place };
	key.address[*from] = v->src, key.address[!*from] = v->dst;
	key.port[*from] = (uint16_t)v->sport, key.port[!*from] = (uint16_t)v->dport;
	uint32_t h = ((key.address[0] * 31 + key.address[1]) * 31 + key.port[0] * 65599u + key.port[1]) * 31 + key.host * 2 + key.place;

	h = (h ^ h >> 13) * 0x5bd1e995u;
	if (!s->passage)
		s->passage = calloc(SIM_PASSAGES, sizeof(*s->passage));
	for (uint32_t i = 0; i < SIM_PASSAGES; i++) {
		struct passage *p = &s->passage[((h ^ h >> 15) + i) % SIM_PASSAGES];
		if (!p->port[0] && !p->port[1])
			memcpy(p, &key, offsetof(struct passage, life));
		if (!memcmp(p, &key, offsetof(struct passage, life)))
			return p;
	}
	sim_wrong(s, "the firewalls have run out of room");
	return 0;
}

static void opened(struct half *h, const struct view *v, uint32_t end)
{
	h->isn = v->seq;
	h->end = h->edge = end;         /* a message with the SYN is never acknowledged as data */
	h->largest = v->window ? v->window : 1;
	h->can_scale = v->has_scale;
	h->scale = v->scale;
}

static int answers(const struct half *asked, const struct view *v)
{
	return !after(v->ack, asked->end) && after(v->ack, asked->isn);
}

/* SYN and SYN-ACK.  Non-zero: the segment is a part of the handshake, and rightly so.  A SYN of a connection that is there
 * changes nothing, unless it is answered by another number than the first one was: then a new one has begun. */
static int handshake(struct passage *p, uint32_t from, const struct view *v, uint32_t end)
{
	struct half *a = &p->half[from], *b = &p->half[!from];

	if (!(v->flags & F_ACK)) {
		if (p->life == NOBODY || p->life == RESET || p->first != from || (p->life == ASKED && v->seq != a->isn)) {
			memset(p->half, 0, sizeof(p->half));
			p->first = from;
			p->life = ASKED;
			opened(a, v, end);
		}
		opened(&p->again, v, end);
		p->waits = 1;
		return 1;
	}
	if (p->life == NOBODY || p->first == from || !answers(&p->again, v))
		return 0;
	p->waits = 0;
	if (p->life != ASKED && v->seq == a->isn && p->again.isn == b->isn)
		return 1; /* repeated */
	*b = p->again;
	opened(a, v, end);
	if (!a->can_scale || !b->can_scale)
		a->scale = b->scale = 0;
	b->edge = v->ack + v->window;
	p->life = ANSWERED;
	return 1;
}

static const char BEYOND[] = "beyond the window", BEFORE[] = "before the window", PAST[] = "acknowledges what is long past";

/* 0: it passes. */
static const char *invalid(struct passage *p, uint32_t from, const struct view *v)
{
	struct half *a = &p->half[from], *b = &p->half[!from];
	uint32_t end = v->seq + v->payload + !!(v->flags & F_FIN) + !!(v->flags & F_SYN), sack = v->ack;

	if (v->flags & F_SYN)
		return handshake(p, from, v, end) ? 0 : "a SYN-ACK that answers nothing";
	if (p->life == NOBODY)
		return "no connection";
	if (p->life == RESET || (p->life == ASKED && p->first != from))
		return 0; /* ignored: neither its own nor wrong */
	if (v->flags & F_RST) {
		p->life = RESET;
		return 0;
	}
	if (p->life == ASKED)
		return "no answer yet";
	for (uint32_t i = 0; i < v->sacks; i++)
		sack = after(v->sack[i].to, sack) ? v->sack[i].to : sack;
	uint32_t oldest = a->largest > OLDEST_ACK ? a->largest : OLDEST_ACK;
	const char *why = after(v->seq, a->edge)		? BEYOND
			  : !after(end, a->end - b->largest - 1) ? BEFORE
			  : after(sack, b->end)			? "acknowledges what has not passed"
			  : !after(sack, b->end - oldest - 1)	? PAST
								: 0;
	if (why == BEYOND)
		a->end = after(end, a->end) ? end : a->end; /* it may be acknowledged all the same */
	if (why)
		return p->waits ? 0 : why; /* of the old connection or of a new one: nobody knows yet */
	uint32_t window = v->window << a->scale, all = window + (sack - v->ack);
	a->largest = all > a->largest ? all : a->largest;
	a->end = after(end, a->end) ? end : a->end;
	if (after(end, a->edge))
		b->largest += end - a->edge;
	if (!after(b->edge, sack + window))
		b->edge = sack + window + !window;
	if (p->first == from)
		p->life = GOING;
	return 0;
}

void firewall_judge(struct sim *s, int host, enum place place, const struct packet *packet)
{
	struct view v;
	uint32_t from;

	if (view_read(packet, &v) || v.control)
		return;
	struct passage *p = passage_of(s, host, place, &v, &from);
	const char *why = p ? invalid(p, from, &v) : 0;
	s->outcome.judged++;
	if (!why)
		return;
	s->outcome.invalid++;
	/* a proxy's window was another than the server's is, and without timestamps nobody can tell from where a window counts: TCP
	 * repairs what firewalls drop then */
	if ((s->scenario.proxy || !s->scenario.timestamps) && (why == BEYOND || why == BEFORE || why == PAST))
		return;
	if (sim_orderly(s))
		sim_wrong(s, "a strict firewall %s host %d calls a segment INVALID: %s (port %u to %u, seq %u +%u, ack %u)",
			  place == INSIDE ? "in" : "at the link of", host, why, v.sport, v.dport, v.seq, v.payload, v.ack);
}

void firewall_free(struct sim *s) { free(s->passage); }
