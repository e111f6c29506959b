/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that have been received come once more, at any time later, from anybody: nothing may follow from them. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../dysco_ns/host/port.h" /* for the tables; core/port.h is another */
#include "sim.h"

static uint64_t mixed(uint64_t sum, const void *from, size_t n)
{
	const uint8_t *bytes = from;

	for (size_t i = 0; i < n; i++)
		sum = (sum ^ bytes[i]) * 0x100000001b3u;
	return sum;
}

/* What an entry does to segments; not what it counts or has seen. */
static uint64_t entries_digest(const struct table *t)
{
	uint64_t all = 0;

	for (u32 i = 0; i < BUCKETS; i++)
		for (const struct node *n = t->bucket[i]; n; n = n->next) {
			const struct entry *e = (const struct entry *)n->value;
			uint64_t one = mixed(mixed(1, n->key, t->key_bytes), &e->to, sizeof(e->to));
			all += mixed(mixed(one, &e->nonce, sizeof(e->nonce)), &e->slow, 3);
		}
	return all;
}

/* What follows from a session; leases may be renewed. */
static uint64_t sessions_digest(const struct table *t)
{
	uint64_t all = 0;

	for (u32 i = 0; i < BUCKETS; i++)
		for (const struct node *n = t->bucket[i]; n; n = n->next) {
			struct session s = *(const struct session *)n->value;
			s.lock_until_ns = s.idle_since_ns = s.idle_packets = s.syns = s.known_next = s.old_epochs = s.newest = 0;
			memset(s.known, 0, sizeof(s.known)); /* known to be over: more of the same */
			all += mixed(1, &s, sizeof(s));
		}
	return all;
}

static uint64_t records_digest(const struct table *t)
{
	uint64_t all = 0;

	for (u32 i = 0; i < BUCKETS; i++)
		for (const struct node *n = t->bucket[i]; n; n = n->next) {
			struct reconfig r = *(const struct reconfig *)n->value;
			r.lock_ns = 0;
			all += mixed(1, &r, sizeof(r));
		}
	return all;
}

static uint64_t digest(const struct agent *a)
{
	return entries_digest(&a->egress) + 3 * entries_digest(&a->ingress) + 5 * sessions_digest(&a->session) +
	       7 * records_digest(&a->reconfig);
}

void replay_record(struct sim *s, int host, const struct packet *p)
{
	struct view v;
	const uint8_t *d = p->data;

	if (!s->scenario.replays || sim_random(s, 4) || view_read(p, &v) || v.payload < 16 || !(v.control || v.flags & F_SYN) ||
	    get16(d + v.data_at) != 0x4459)
		return;
	struct recorded *r = &s->recorded[s->records++ % SIM_RECORDED];
	if (r->packet)
		sim_recycle(s, r->packet);
	*r = (struct recorded){ host, s->now, sim_copy(s, p) };
}

/* Whether the transaction that a message is about is still going on here: then it may be the next of its kind for all we know,
 * and brings on what a repeated one would. */
static int under_way(struct sim *s, int host, u32 txid)
{
	const struct table *t = &s->agent[host]->reconfig, *sessions = &s->agent[host]->session;

	for (u32 i = 0; i < BUCKETS; i++)
		for (const struct node *n = t->bucket[i]; n; n = n->next)
			if (((const struct reconfig *)n->value)->txid == txid)
				return 1;
	for (u32 i = 0; i < BUCKETS; i++)
		for (const struct node *n = sessions->bucket[i]; n; n = n->next)
			if (((const struct session *)n->value)->txid == txid && ((const struct session *)n->value)->lock != UNLOCKED)
				return 1;
	return 0;
}

/* A middlebox that has come back knows by which transaction it had left, and of none before. */
static int came_back(const struct sim *s, const struct recorded *r, u32 txid)
{
	struct view v;
	u64 nonce;

	view_read(r->packet, &v);
	memcpy(&nonce, r->packet->data + v.data_at + 8, 8);
	const struct session *session = agent_session(s->agent[r->host], nonce);
	return session && session->new_path.txid && session->left_txid != txid && session->created_ns > 1000000000 + r->at * 1000;
}

static void replay(struct sim *s)
{
	const struct recorded *r = &s->recorded[sim_random(s, s->records < SIM_RECORDED ? s->records : SIM_RECORDED)];
	struct view v;

	if (sim_dead(s, r->host))
		return;
	struct packet *p = sim_copy(s, r->packet);
	view_read(p, &v);
	u32 type = p->data[v.data_at + 3], txid = v.control ? get32(p->data + v.data_at + 16) : 0;
	int judged = v.control && !under_way(s, r->host, txid) && !came_back(s, r, txid);
	uint64_t before = judged ? digest(s->agent[r->host]) : 0;
	s->outcome.replayed++;
	enum way way = sim_arrives(s, r->host, p);
	if (judged && digest(s->agent[r->host]) != before)
		sim_wrong(s, "a message of type %u, transaction %08x, has changed host %d, though it was an old one", type, txid, r->host);
	sim_passed(s, r->host, p, way, 0);
}

void replay_tick(struct sim *s)
{
	if (s->replays_left && s->records && !sim_random(s, 4)) {
		s->replays_left--;
		replay(s);
	}
}

static void table_print(const struct table *t, const char *name, int host)
{
	for (u32 i = 0; i < BUCKETS; i++)
		for (const struct node *n = t->bucket[i]; n; n = n->next) {
			printf("host %d has kept in %s:", host, name);
			for (u32 k = 0; k < t->key_bytes; k++)
				printf(" %02x", n->key[k]);
			const struct entry *e = (const struct entry *)n->value;
			if (t->value_bytes == sizeof(*e))
				printf(" session %08x side %u flags %u", (u32)e->nonce, e->side, e->flags);
			puts("");
		}
}

/* What is left, for people. */
void tables_print(struct sim *s, int host)
{
	const struct agent *a = s->agent[host];

	table_print(&a->egress, "egress", host);
	table_print(&a->ingress, "ingress", host);
	table_print(&a->session, "sessions", host);
	table_print(&a->reconfig, "records", host);
}

void replay_free(struct sim *s)
{
	for (uint32_t i = 0; i < SIM_RECORDED; i++)
		free(s->recorded[i].packet);
}
