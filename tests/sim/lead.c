/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemons do: repeat, release, cancel, forget (as dysco_ns/agent/leader.py, in C for speed). */
#include <stdio.h>
#include <string.h>

#include "sim.h"

void *sim_events;

enum { FIRST_REPEAT = 20000, UNHURRIED = 400000, LAST_REPEAT = 500000, RELEASE_LAST = 1000000, GIVE_UP = 3000000, FORGET = 2000000, RIGHT_OF = 1 };

static u32 command(struct sim *s, int host, u32 kind, u64 nonce, u32 txid, u32 side)
{
	struct command c = { .kind = kind, .nonce = nonce, .txid = txid, .side = side };
	u32 refusal = agent_command(s->agent[host], &c);

	sim_outbox(s, host);
	return refusal;
}

static void ended(struct lead *l, uint32_t *counter, enum result result)
{
	l->active = 0;
	++*counter;
	if (l->result)
		*l->result = result;
}

/* A transaction of an epoch that is new to the session, as far as this host has heard. */
u32 lead_txid(struct sim *s, int host, u64 nonce)
{
	const struct session *session = agent_session(s->agent[host], nonce);

	return ((session ? session->newest >> 16 : 0) + 1) << 16 | (sim_random(s, 1 << 16) | 1);
}

/* Who was only too early, or behind, tries again. */
static enum result refused_how(u32 refusal) { return refusal == REFUSED_BUSY || refusal == REFUSED_STALE ? BUSY : REFUSED; }

int lead_start(struct sim *s, int host, u64 nonce, struct command *c, enum result *result)
{
	struct lead *l = 0;

	for (int i = 0; i < SIM_LEADS; i++)
		if (s->lead[i].active && s->lead[i].host == host && s->lead[i].nonce == nonce)
			return -1;
		else if (!s->lead[i].active)
			l = &s->lead[i];
	if (!l)
		return -1;
	int at = (int)(l - s->lead);
	s->lead_lowest = at < s->lead_lowest ? at : s->lead_lowest;
	usec first = sim_lossless(s) ? UNHURRIED : FIRST_REPEAT; /* nothing is lost, so no repeat may be needed */
	c->kind = COMMAND_RECONFIGURE;
	c->nonce = nonce;
	c->txid = lead_txid(s, host, nonce);
	*l = (struct lead){ .host = host, .active = 1, .result = result, .nonce = nonce, .txid = c->txid, .started = s->now,
			    .next_at = s->now + first, .wait = first };
	u32 refusal = agent_command(s->agent[host], c);
	sim_outbox(s, host);
	if (refusal)
		ended(l, &s->outcome.refused, refused_how(refusal));
	lead_events(s, host);
	return 0;
}

/* Everybody who asks is told, in the time that the question takes there and the answer back, twice if it has to wait. */
static void answered(struct sim *s, struct lead *l)
{
	usec most = 4 * (usec)s->hosts * s->scenario.delay_us + 2000;

	if (!l->answered && sim_lossless(s) && s->now - l->started > most)
		sim_wrong(s, "host %d had asked for a lock and was answered after %u us, in a network that loses nothing", l->host,
			  (unsigned)(s->now - l->started));
	l->answered = 1;
}

/* A line of an event, as tests/sim reads it.  Kind 0: the agent's ring was full, and some may have been lost. */
static void write_down(struct sim *s, int host, const struct event *e, u64 value)
{
	fprintf(sim_events, "%u,%llu,%d,%u,%016llx,%08x,%llu,%u\n", s->scenario.seed, (unsigned long long)e->time_ns, host, e->kind,
		(unsigned long long)e->nonce, e->txid, (unsigned long long)value, e->side);
}

void lead_note(struct sim *s, int host, u32 kind, u64 nonce, u64 value)
{
	struct event e = { .time_ns = 1000000000 + s->now * 1000, .nonce = nonce, .kind = kind };

	if (sim_events)
		write_down(s, host, &e, value);
}

static void heard(struct sim *s, int host, const struct event *e)
{
	if ((e->kind == EVENT_SETTLED || e->kind == EVENT_OLD_PATH_GONE) && s->forgets < SIM_FORGETS)
		s->forget[s->forgets++] = (struct forget){ host, e->nonce, e->txid, e->side, s->now + FORGET };
	if (e->kind == EVENT_NO_AGENT)
		calm_bypassed(s, e->nonce);
	if (e->kind == EVENT_LEFT_CHAIN)
		proxy_left(s, host, e->nonce);
	if (e->kind == EVENT_TRIGGER || e->kind == EVENT_MOVED) {
		struct command c = { .right_anchor = e->value, .flags = e->kind == EVENT_TRIGGER ? RIGHT_OF : 0 };
		lead_start(s, host, e->nonce, &c, 0);
	}
	if (e->side != SIDE_RIGHT)
		return;
	for (int i = 0; i < SIM_LEADS; i++) {
		struct lead *l = &s->lead[i];
		if (!l->active || l->host != host || l->nonce != e->nonce || l->txid != e->txid)
			continue;
		switch (e->kind) {
		case EVENT_NEW_PATH_SYN: answered(s, l); break;
		case EVENT_LOCK_REFUSED: answered(s, l), ended(l, &s->outcome.refused, refused_how(e->value)); break;
		case EVENT_CANCELLED: ended(l, &s->outcome.cancelled, CANCELLED); break;
		case EVENT_OLD_PATH_GONE: ended(l, &s->outcome.done, DONE); break;
		case EVENT_NEW_PATH_READY: l->ready = 1, l->wait = FIRST_REPEAT, l->next_at = s->now + FIRST_REPEAT; break;
		case EVENT_DRAINED: l->next_at = s->now; break;
		}
	}
}

void lead_events(struct sim *s, int host)
{
	struct event e, lost = { .time_ns = s->now * 1000 };
	int heard_now = 0;

	while (agent_event(s->agent[host], &e)) {
		if (sim_events)
			write_down(s, host, &e, e.value);
		if (sim_events && ++heard_now == AGENT_EVENTS)
			write_down(s, host, &lost, 0);
		if (sim_recorder)
			fprintf(sim_recorder, "%llu,event,%d,%u,%llx,%08x,%u\n", (unsigned long long)s->now, host, e.kind,
				(unsigned long long)e.nonce, e.txid, e.side);
		if (s->scenario.trace)
			printf("%11.3f event %d  kind %u session %08x txid %08x value %08x side %u\n", (double)s->now / 1000, host,
			       e.kind, (u32)e.nonce, e.txid, e.value, e.side);
		heard(s, host, &e);
	}
}

static void due(struct sim *s, struct lead *l)
{
	usec last = l->ready ? RELEASE_LAST : LAST_REPEAT;

	l->wait = l->wait * 2 < last ? l->wait * 2 : last;
	l->next_at = s->now + l->wait;
	if (l->ready) {
		u32 refusal = command(s, l->host, COMMAND_RELEASE, l->nonce, l->txid, 0);
		if (refusal == REFUSED_NO_SESSION || refusal == REFUSED_SESSION_OVER)
			ended(l, &s->outcome.unfinished, CANCELLED);
	} else if (s->now - l->started < GIVE_UP) {
		command(s, l->host, COMMAND_REPEAT, l->nonce, l->txid, 0);
	} else if (!l->cancelling) {
		l->cancelling = 1;
		l->next_at = s->now + FIRST_REPEAT;
		command(s, l->host, COMMAND_CANCEL, l->nonce, l->txid, 0);
	} else if (command(s, l->host, COMMAND_FORGET_RECORD, l->nonce, l->txid, SIDE_RIGHT) == REFUSED_BAD_STATE) {
		l->started = s->now;
		l->cancelling = 0;
	} else if (l->active) {
		lead_events(s, l->host);
		if (l->active)
			ended(l, &s->outcome.cancelled, CANCELLED);
	}
}

void lead_timer(struct sim *s)
{
	for (int i = s->lead_lowest; i < SIM_LEADS; i++)
		if (s->lead[i].active && s->lead[i].next_at <= s->now && !sim_dead(s, s->lead[i].host)) {
			due(s, &s->lead[i]);
			lead_events(s, s->lead[i].host);
		}
	for (uint32_t i = 0; i < s->forgets;) {
		struct forget f = s->forget[i];
		if (f.at > s->now) {
			i++;
			continue;
		}
		s->forget[i] = s->forget[--s->forgets];
		if (command(s, f.host, COMMAND_FORGET_RECORD, f.nonce, f.txid, f.side) == REFUSED_BUSY) {
			f.at = s->now + FORGET; /* something is to be learnt still */
			s->forget[s->forgets++] = f;
		}
	}
}

uint32_t lead_pending(const struct sim *s)
{
	uint32_t n = s->forgets;

	for (int i = 0; i < SIM_LEADS; i++)
		n += s->lead[i].active;
	return n;
}
