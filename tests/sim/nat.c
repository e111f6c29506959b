/* SPDX-License-Identifier: Apache-2.0 */
/* A NAT with an agent: what it forwards to the right gets its own address and a port of its own, the way back is undone. */
#include <string.h>

#include "sim.h"

enum { NAT_PORT = 30000 };

static struct nat *inside(struct sim *s, const uint8_t *d)
{
	for (uint32_t i = 0; i < s->nats; i++)
		if (s->nat[i].src == be32_at(d + IP_AT + 12) && !memcmp(&s->nat[i].sport, d + TCP_AT, 2))
			return &s->nat[i];
	return 0;
}

static struct nat *outside(struct sim *s, const uint8_t *d)
{
	for (uint32_t i = 0; i < s->nats; i++)
		if (s->nat[i].outside == be32_at(d + IP_AT + 16) && !memcmp(&s->nat[i].port, d + TCP_AT + 2, 2))
			return &s->nat[i];
	return 0;
}

static struct nat *mapping(struct sim *s, int host, const uint8_t *d)
{
	struct nat *n = inside(s, d);

	if (n || !(d[TCP_AT + 13] & F_SYN) || s->nats == SIM_SESSIONS)
		return n;
	n = &s->nat[s->nats];
	*n = (struct nat){ .src = be32_at(d + IP_AT + 12), .outside = s->address[host], .port = be16_of(NAT_PORT + s->nats) };
	memcpy(&n->sport, d + TCP_AT, 2);
	n->session = (uint32_t)nat_session(s, get16(d + TCP_AT));
	s->nats++;
	return n;
}

int nat_session(const struct sim *s, uint32_t port)
{
	if (port >= NAT_PORT && port < NAT_PORT + s->nats)
		return (int)s->nat[port - NAT_PORT].session;
	uint32_t first = port < OUTER_PORT ? CLIENT_PORT : OUTER_PORT;
	return port >= first && port < first + s->scenario.sessions ? (int)(port - first) : -1;
}

int nat_knows(const struct sim *s, uint32_t session)
{
	for (uint32_t i = 0; i < s->nats; i++)
		if (s->nat[i].session == session)
			return 1;
	return 0;
}

int nat_forward(struct sim *s, int host, struct packet *p)
{
	uint8_t *d = p->data;

	if (get16(d + TCP_AT + 2) == SERVER_PORT) {
		struct nat *n = mapping(s, host, d);
		if (!n)
			return 0;
		memcpy(d + IP_AT + 12, &n->outside, 4);
		memcpy(d + TCP_AT, &n->port, 2);
	} else {
		struct nat *n = outside(s, d);
		if (!n)
			return 0;
		memcpy(d + IP_AT + 16, &n->src, 4);
		memcpy(d + TCP_AT + 2, &n->sport, 2);
	}
	sim_checksum(p);
	return 1;
}
