/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at hosts between steps: who holds what, and what the end hosts may send. */
#include <string.h>

#include "hosts.h"

static void look_at(const int *host, int who)
{
	const struct bytes *b = bytes_of(&hosts_seen, (u32)host[who]);

	memcpy(&world.stack, b->at, sizeof(world.stack));
	thaw(world.agent[who], b->at + sizeof(world.stack), b->length - sizeof(world.stack), 0);
}

static void look_away(int who)
{
	static u8 bytes[FROZEN_MOST];
	freeze(world.agent[who], bytes);
}

static u32 holds;
static long holds_step(void *table, u64 *nonce, struct session *s, void *context)
{
	(void)table, (void)context;
	for (u32 side = SIDE_LEFT; side <= SIDE_RIGHT; side++) {
		struct reconfig_key key = { *nonce, side, 0 };
		const struct reconfig *r = table_find(&here->reconfig, &key);
		int abandoned = r && r->phase < PHASE_READY && r->lock_ns < FROZEN_NOW; /* its lease has run out */
		holds |= r && !abandoned ? 1u << r->txid : 0;
	}
	holds |= s->lock && s->lock_until_ns > FROZEN_NOW ? 1u << s->txid : 0;
	holds |= s->held.txid ? 1u << s->held.txid : 0;
	return 0;
}

static u8 holds_of(const int *host, int who)
{
	static int known_number[WORLD_HOSTS];
	static u8 known[WORLD_HOSTS];

	if (known_number[who] == host[who])
		return known[who];
	look_at(host, who);
	holds = 0;
	here = world.agent[who];
	port_each_session(holds_step);
	look_away(who);
	known_number[who] = host[who];
	return known[who] = (u8)holds;
}

static u8 may_of(const int *host, int who)
{
	const struct end *e = &stack_of(host, who)->end;
	u32 bits = stack_closed(e) ? 1u << CLOSED : 0;

	for (u32 what = 0; what < CLOSED; what++)
		bits |= stack_can(e, what) ? 1u << what : 0;
	return (u8)bits;
}

void world_look(const int *host, unsigned char *holds_now, unsigned char *may)
{
	for (int i = 0; i < world.hosts + world.beside; i++) {
		holds_now[i] = holds_of(host, i);
		may[i] = is_end(i) ? may_of(host, i) : 0;
	}
}
