/* SPDX-License-Identifier: Apache-2.0 */
/* Commands of the daemon, each at the core that it concerns.  The control thread runs them while all cores have let go. */
#include "mbuf_port.h"
#include "datapath.h"
#include "move.h"
#include "worker.h"

static u32 command_at(struct agent *a, const void *frame, u32 n, int *more)
{
	struct packet *p = rte_pktmbuf_alloc(a->shared->pool);
	void *data = p ? rte_pktmbuf_append(p, (u16)n) : 0;

	*more = 0;
	if (!data) {
		rte_pktmbuf_free(p);
		return REFUSED_NO_ROOM;
	}
	memcpy(data, frame, n);
	here = a;
	a->in_hand = &a->pair[0];
	a->arriving = 0;
	a->hint[0] = a->hint[1] = 0;
	u32 refusal = command_run(p);
	sessions_close(&a->sessions);
	table_bury(&a->egress);
	table_bury(&a->ingress);
	table_bury(&a->reconfig);
	agent_flush(a);
	rte_pktmbuf_free(p);
	*more = a->scratch.command.kind == COMMAND_EXPIRE && a->each;
	return refusal;
}

static struct agent *agent_with(struct shared *s, u64 nonce)
{
	for (u32 i = 0; i < s->spread.cores; i++)
		if (nonce && table_find(&s->agent[i]->sessions.table, &nonce))
			return s->agent[i];
	return s->agent[0];
}

/* The core of a five-tuple that the local stack will use. */
static struct agent *agent_for(struct shared *s, const struct five_tuple *t)
{
	struct agent *a = s->agent[s->spread.cores > 1 ? core_of(&s->spread, t) : 0];
	const u64 *claimed = s->spread.cores > 1 ? table_find(&a->claims.of[0], t) : 0;

	return claimed ? s->agent[*claimed] : a;
}

/* Every core in turn: a pass over all sessions. */
static u32 expire_all(struct shared *s, const void *frame, u32 n, int *more)
{
	static u32 at;
	u32 refusal = command_at(s->agent[at], frame, n, more);

	if (*more || refusal != REFUSED_NOT)
		return refusal;
	at = (at + 1) % s->spread.cores;
	*more = at != 0;
	return refusal;
}

u32 agents_command(struct shared *s, const void *frame, u32 n, int *more)
{
	struct command c;

	memcpy(&c, (const u8 *)frame + AT_IP, sizeof(c));
	if (c.kind == COMMAND_EXPIRE)
		return expire_all(s, frame, n, more);
	if (c.kind == COMMAND_UNPARK)
		agents_release(s, c.nonce); /* before anything that the stack sends afterwards */
	struct agent *a = c.kind == COMMAND_NEXT ? agent_for(s, &c.tuple) : agent_with(s, c.nonce);
	if (c.kind == COMMAND_SPLICE && agent_with(s, c.peer) != a && session_move(agent_with(s, c.peer), a, c.peer))
		return REFUSED_NO_ROOM;
	return command_at(a, frame, n, more);
}
