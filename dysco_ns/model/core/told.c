/* SPDX-License-Identifier: Apache-2.0 */
/* What an agent has told and counted in one step. */
#include "hosts.h"
#include "message.h"

static u32 told_at_left(const struct event *e)
{
	switch (e->kind) {
	case EVENT_LOCK_REFUSED: return TOLD_REFUSED;
	case EVENT_NEW_PATH_SYN: return TOLD_SYN;
	case EVENT_NEW_PATH_READY: return TOLD_READY;
	case EVENT_DRAINED: return TOLD_DRAINED;
	case EVENT_OLD_PATH_GONE: return TOLD_GONE;
	case EVENT_CANCELLED: return TOLD_CANCELLED;
	}
	return 0;
}

static int undone;
void hear(int who)
{
	struct event e;

	undone = 0;

	while (agent_event(world.agent[who], &e)) {
		if (!e.txid || e.txid > WORLD_ATTEMPTS)
			continue;
		if (who == world.attempts[e.txid].left && e.side == SIDE_RIGHT)
			world.now->told[e.txid] |= told_at_left(&e);
		else if (e.kind == EVENT_OLD_PATH_GONE && e.side == SIDE_LEFT)
			world.now->told[e.txid] |= TOLD_GONE_RIGHT;
		else if (e.kind == EVENT_CANCELLED && e.side == SIDE_LEFT)
			undone = 1;
	}
}

/* A cancel has come to its right anchor, and has found nothing to undo: it has overtaken the request. */
int overtakes(const struct question *q)
{
	if (q->doing != ARRIVES)
		return 0;
	const struct bytes *b = bytes_of(&messages_seen, q->what);
	const u8 *m = b->at + AT_OPTIONS + 4; /* behind the option that marks it */
	return b->length == AT_OPTIONS + 4 + CONTROL_BYTES && m[3] == MESSAGE_CANCEL && q->who == (u32)world.attempts[m[19]].right && !undone;
}

/* What must not be counted, whatever happens to messages: none is damaged, tables have room, every host has a route. */
void counted(int who)
{
	static const struct {
		u32 counter;
		const char *why;
	} never[] = {
		{ COUNT_DROP_BAD_MESSAGE, "a message is dropped as bad" },
		{ COUNT_DROP_BAD_SIGNATURE, "a message is dropped by its signature" },
		{ COUNT_DROP_UNSIGNED, "a message is dropped as unsigned" },
		{ COUNT_DROP_COLLISION, "a SYN is dropped as a collision" },
		{ COUNT_DROP_NO_PORT, "no port is free" },
		{ COUNT_DROP_NO_ROUTE, "there is no route" },
		{ COUNT_DROP_TABLE_FULL, "a table is full" },
		{ COUNT_CHAIN_TOO_LONG, "a chain is too long" },
		{ COUNT_DROP_RESIZE, "a packet cannot be resized" },
		{ COUNT_DROP_UNKNOWN_SESSION, "a message is dropped as of an unknown session" },
		{ COUNT_PASS_FRAGMENT, "a fragment" },
		{ COUNT_PASS_IP_OPTIONS, "IP options" },
		{ COUNT_PASS_SYN_DATA, "a SYN with data of its own" },
		{ COUNT_PASS_FOREIGN_PAYLOAD, "a foreign payload in a SYN" },
		{ COUNT_EMIT_FAILED, "a segment could not be emitted" },
		{ COUNT_SPLIT_FAILED, "a segment could not be split" },
		{ COUNT_EVENT_LOST, "an event is lost" },
	};

	for (u32 i = 0; i < sizeof(never) / sizeof(*never); i++)
		if (world.agent[who]->counter[never[i].counter])
			wrong(never[i].why);
	world.now->stale = !!world.agent[who]->counter[COUNT_DROP_STALE_TXID];
}
