/* SPDX-License-Identifier: Apache-2.0 */
/* Middleboxes that terminate TCP (paper III-D): two sessions, each with its own numbers, windows and clocks, of which the
 * first bytes of each direction are taken and replaced by others.  Then it joins them and relays until both have ended. */
#include <string.h>

#include "sim.h"

enum { BACKLOG = 40000, ASK_AGAIN_US = 400000, CLOSE_AGAIN_US = 200000, CLOSE_UNTIL_US = 10000000, RIGHT_OF = 1 };

static uint32_t less(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* How the bytes that `from` sends leave the proxy: some taken from the beginning, others put there. */
static struct content changed(struct sim *s, const struct tcp *from)
{
	struct content c = from->out;
	uint32_t most = less(from->total, 3000);

	c.own = ~c.stream;
	c.prefix = sim_random(s, 3) ? 0 : sim_random(s, 3000);
	c.cut = sim_random(s, 3) ? 0 : sim_random(s, most + 1);
	return c;
}

static void end_join(struct sim *s, struct tcp *t, const struct tcp *like, int host, int other)
{
	*t = *like;
	t->host = host;
	t->other = other;
	t->relays = 1;
	t->leaving = 0;
	t->timestamps = s->scenario.timestamps;
	t->shift_out = sim_random(s, 10);
	t->own_window = (60000 + sim_random(s, 5000)) << (t->shift_out ? 1 : 0);
	t->ts_offset = sim_random(s, 0);
}

/* Session `i` gets a proxy between its ends: inner talks to the client, outer to the server. */
static void proxy_start(struct sim *s, uint32_t i)
{
	struct proxy *p = &s->proxy[i];
	struct tcp *client = &s->end[2 * i], *server = &s->end[2 * i + 1];
	int host = (int)s->scenario.proxy, at = (int)(2 * s->scenario.sessions + 2 * i);

	p->inner = &s->end[at];
	p->outer = &s->end[at + 1];
	end_join(s, p->inner, server, host, (int)(2 * i));
	end_join(s, p->outer, client, host, (int)(2 * i + 1));
	p->inner->address = p->outer->address = client->peer = s->address[host];
	p->outer->port = server->peer_port = be16_of(OUTER_PORT + i);
	server->peer = s->address[host];
	client->other = at;
	server->other = at + 1;
	p->outer->out = server->in = changed(s, client);
	p->inner->out = client->in = changed(s, server);
	p->outer->total = server->peer_total = client->total + server->in.prefix - server->in.cut;
	p->inner->total = client->peer_total = server->total + client->in.prefix - client->in.cut;
	p->inner->peer_total = client->total;
	p->outer->peer_total = server->total;
	p->inner->in = client->out;
	p->outer->in = server->out;
	client->edge_unknown = server->edge_unknown = 1; /* who comes after the proxy may offer less */
	p->stays = sim_random(s, 4) == 0;
	p->at = 10000 + sim_random(s, 200000);
}

void proxies_start(struct sim *s)
{
	for (uint32_t i = 0; s->scenario.proxy && i < s->scenario.sessions; i++)
		if (sim_random(s, 4))
			proxy_start(s, i);
}

/* One direction: what `from` has received is read as far as `to` has room for it. */
static void relay(struct tcp *from, struct tcp *to)
{
	uint32_t received = from->rcv_nxt - from->irs - 1 - from->fin_seen, cut = to->out.cut, prefix = to->out.prefix;
	uint32_t sent = to->snd_una == to->iss ? 0 : less(to->snd_una - to->iss - 1, to->total), most = sent + BACKLOG;

	if (received < cut) {
		from->read = received;
		return;
	}
	uint32_t available = less(received - cut + prefix, most > prefix ? most : prefix);
	uint32_t was_closed = from->rcv_nxt - from->irs - 1 - from->read + 2 * from->mss > from->own_window;
	if (available > to->available || (available == to->total && !to->fin_sent))
		tcp_offer(to, available);
	from->read = available - prefix + cut;
	if (was_closed)
		tcp_read(from);
}

static int ready_to_join(const struct proxy *p)
{
	const struct tcp *in = p->inner, *out = p->outer;

	return tcp_warm(in) && tcp_warm(out) && in->available >= in->out.prefix && out->available >= out->out.prefix &&
	       in->read >= out->out.cut && out->read >= in->out.cut;
}

static void join(struct sim *s, struct proxy *p)
{
	struct command c = { .kind = COMMAND_SPLICE, .nonce = p->nonce, .peer = p->peer };
	struct agent *agent = s->agent[p->inner->host];

	c.delta[RIGHTWARD] = p->outer->out.prefix - p->outer->out.cut;
	c.delta[LEFTWARD] = p->inner->out.prefix - p->inner->out.cut;
	if (agent_command(agent, &c))
		return; /* one of them has ended */
	p->spliced = p->inner->leaving = p->outer->leaving = 1;
	lead_note(s, p->inner->host, NOTE_SPLICED, p->nonce, p->peer);
	s->end[p->inner->other].beyond = p->outer->other;
	s->end[p->outer->other].beyond = p->inner->other;
}

/* Both sockets get their end of file, and again until they have answered with their own. */
static void close_both(struct sim *s, struct proxy *p)
{
	u64 nonce[] = { p->nonce, p->peer };

	for (int i = 0; i < 2; i++) {
		struct command c = { .kind = COMMAND_CLOSE, .nonce = nonce[i], .ifindex = 1 };
		agent_command(s->agent[p->inner->host], &c);
		sim_outbox(s, p->inner->host);
	}
	p->at = p->wait < CLOSE_UNTIL_US ? s->now + p->wait : ~(usec)0;
	p->wait *= 2;
}

static void act(struct sim *s, struct proxy *p)
{
	struct command c = { .kind = COMMAND_TRIGGER, .nonce = p->nonce, .txid = lead_txid(s, p->inner->host, p->nonce), .flags = RIGHT_OF };

	if (p->left) {
		close_both(s, p);
	} else if (!p->spliced) {
		p->at = s->now + 5000;
		p->nonce = nonce_of(s, p->inner); /* of its egress: the way back to the client */
		p->peer = nonce_of(s, p->outer);
		if (ready_to_join(p) && p->nonce && p->peer)
			join(s, p);
	} else if (!p->stays) {
		p->at = s->now + ASK_AGAIN_US;
		agent_command(s->agent[p->inner->host], &c);
		sim_outbox(s, p->inner->host);
	}
}

/* Its agent has given a socket its end of file: nothing more will come, and nothing more is sent. */
static void cut_short(struct tcp *from, struct tcp *to)
{
	if (from->leaving && from->fin_seen && !to->fin_sent && from->read == from->peer_total && to->total != to->available) {
		to->total = to->available;
		tcp_offer(to, to->available);
	}
}

void proxies_tick(struct sim *s)
{
	for (uint32_t i = 0; s->scenario.proxy && i < s->scenario.sessions; i++) {
		struct proxy *p = &s->proxy[i];
		if (!p->inner || sim_dead(s, p->inner->host))
			continue;
		if (p->inner->state == TCP_OPEN && p->outer->state == TCP_IDLE)
			tcp_open(p->outer);
		if (p->inner->state == TCP_OPEN && p->outer->state == TCP_OPEN) {
			relay(p->inner, p->outer);
			relay(p->outer, p->inner);
			if (p->left)
				cut_short(p->inner, p->outer), cut_short(p->outer, p->inner);
		}
		if (s->now >= p->at)
			act(s, p);
	}
}

void proxy_left(struct sim *s, int host, u64 nonce)
{
	for (uint32_t i = 0; i < s->scenario.sessions; i++) {
		struct proxy *p = &s->proxy[i];
		if (!p->inner || p->inner->host != host || !p->spliced || p->left || (p->nonce != nonce && p->peer != nonce))
			continue;
		p->left = 1;
		p->at = s->now;
		p->wait = CLOSE_AGAIN_US;
		s->outcome.proxies_gone++;
	}
}

static int over(const struct tcp *t)
{
	return t->state == TCP_IDLE || (t->fin_seen && t->fin_sent && t->snd_una == t->snd_max);
}

int proxies_closed(const struct sim *s, uint32_t session)
{
	const struct proxy *p = &s->proxy[session];

	return !p->inner || sim_dead(s, p->inner->host) || (over(p->inner) && over(p->outer));
}
