/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What an outsider, or a broken peer, may do to agents: a libFuzzer target over the host library.
 *
 * Three agents carry a session through a middlebox and begin to take the middlebox out.  Every frame that was seen on
 * the way is kept.  The input then says which of them arrives where once more: as it is, with bytes changed, cut or
 * made longer; or a frame of its own, a command, time that passes.  Nothing may touch memory that is not its own
 * (sanitizers), and afterwards, when all is over, the tables must be empty.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "wire.h"

enum { HOSTS = 3, KEPT = 64, STEPS = 48, FRAME_HEADERS = 14 + 20 + 32, APPLICATION = 40000, SERVICE = 80 };
enum action { AS_IT_IS, CHANGED, CUT, LONGER, OWN, COMMAND, TIME, ACTIONS };

static struct agent *host[HOSTS];
static be32 address[HOSTS];
static struct packet *kept[KEPT];
static u32 count;
static u64 now;
static struct five_tuple session;

struct input {
	const u8 *at;
	size_t left;
};

static u8 next(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->at++;
}

static void copy(struct packet *to, const struct packet *from) { memcpy(to, from, offsetof(struct packet, data) + from->length); }

static void keep(const struct packet *p)
{
	struct packet **place = &kept[count++ % KEPT];

	if (!*place)
		*place = malloc(sizeof(**place));
	copy(*place, p);
}

static void drain(struct agent *a)
{
	struct event event;

	for (struct packet *p; (p = agent_sent(a));) {
		keep(p);
		free(p);
	}
	while (agent_event(a, &event))
		;
}

/* One pass at one host.  Non-zero: the packet goes on. */
static int pass(int i, int arrives, struct packet *p)
{
	enum way way = arrives ? agent_ingress(host[i], p) : agent_egress(host[i], p);

	drain(host[i]);
	if (way == WAY_WIRE)
		keep(p);
	return way == WAY_ON || way == WAY_WIRE;
}

/* A segment of the session as an end host writes it, with the timestamp option. */
static void segment(struct packet *p, int rightward, u32 seq, u32 ack, u8 flags, u32 payload)
{
	memset(p, 0, sizeof(*p));
	struct wire_ethernet *ethernet = (void *)p->data;
	struct wire_ip *ip = (void *)(ethernet + 1);
	struct wire_tcp *tcp = (void *)(ip + 1);
	const struct five_tuple t = rightward ? session : reversed(&session);

	p->length = FRAME_HEADERS + payload;
	ethernet->type = be16_of(ETHERTYPE_IPV4);
	ip->version_length = 0x45;
	ip->total_length = be16_of(p->length - 14);
	ip->ttl = 64;
	ip->protocol = PROTOCOL_TCP;
	ip->src = t.src;
	ip->dst = t.dst;
	tcp->sport = t.sport;
	tcp->dport = t.dport;
	tcp->seq = be32_of(seq);
	tcp->ack = be32_of(ack);
	tcp->data_offset = 0x80;
	tcp->flags = flags;
	tcp->window = be16_of(1000);
	*(be32 *)(tcp + 1) = ALIGNED_TIMESTAMP;
	((be32 *)(tcp + 1))[1] = be32_of(7000 + seq);
}

/* Through all three hosts, as far as it gets. */
static void carry(struct packet *p, int rightward)
{
	for (int hop = 0; hop < HOSTS; hop++) {
		int i = rightward ? hop : HOSTS - 1 - hop;
		if (hop)
			keep(p);
		if (hop && !pass(i, 1, p))
			return;
		if (hop < HOSTS - 1 && !pass(i, 0, p))
			return;
	}
}

static void world_start(void)
{
	static struct packet p;

	now = 1000000000;
	count = 0;
	for (int i = 0; i < HOSTS; i++) {
		u8 bytes[4] = { 10, 0, 0, (u8)(i + 1) };
		memcpy(&address[i], bytes, 4);
		host[i] = agent_new(address[i], 4711u + (u64)i);
		agent_set_time(host[i], now);
	}
	session = (struct five_tuple){ address[0], address[2], be16_of(APPLICATION), be16_of(SERVICE) };
	*agent_policy(host[0], 0) = (struct policy){ .id = 1, .insns = 1, .chain_length = 1, .filter = { { 6, 0, 0, 1 } } };
	agent_policy(host[0], 0)->chain[0] = address[1];
	agent_config(host[0])->policy_slots = 1;
	segment(&p, 1, 100, 0, TCP_SYN, 0);
	carry(&p, 1);
	segment(&p, 0, 500, 101, TCP_SYN | TCP_ACK, 0);
	carry(&p, 0);
	segment(&p, 1, 101, 501, TCP_ACK, 50);
	carry(&p, 1);
	segment(&p, 0, 501, 151, TCP_ACK, 60);
	carry(&p, 0);
	struct command c = { .kind = COMMAND_RECONFIGURE, .txid = 99, .nonce = agent_nonce(host[0], &session),
			     .right_anchor = address[2] };
	agent_command(host[0], &c);
	drain(host[0]);
}

static void time_passes(u64 ns)
{
	now += ns;
	for (int i = 0; i < HOSTS; i++)
		agent_set_time(host[i], now);
}

static void command(struct input *in, int i)
{
	struct command c = { .kind = next(in) % COMMANDS, .txid = 99, .nonce = agent_nonce(host[i], &session) };

	c.right_anchor = address[next(in) % HOSTS];
	c.flags = next(in) & 1;
	c.chain_length = next(in) % 10;
	for (u32 k = 0; k < c.chain_length && k < MAX_MIDDLEBOXES; k++)
		c.chain[k] = address[next(in) % HOSTS];
	c.tuple = session;
	c.peer = c.nonce;
	agent_command(host[i], &c);
	drain(host[i]);
}

static void step(struct input *in)
{
	static struct packet p;
	u8 action = next(in) % ACTIONS, where = next(in);
	int i = where % HOSTS, arrives = where & 64;

	if (action == COMMAND) {
		command(in, i);
		return;
	}
	if (action == TIME) {
		time_passes((u64)next(in) * 20000000);
		return;
	}
	u32 had = count < KEPT ? count : KEPT;
	if (action == OWN || !had) {
		memset(&p, 0, sizeof(p));
		p.length = next(in);
		for (u32 k = 0; k < p.length; k++)
			p.data[k] = next(in);
	} else {
		copy(&p, kept[next(in) % had]);
	}
	if (action == CUT)
		p.length = next(in) % (p.length + 1);
	if (action == LONGER && p.length + 64 < PACKET_BYTES)
		for (u32 k = next(in) & 63; k; k--)
			p.data[p.length++] = next(in);
	if (action == CHANGED)
		for (u32 k = next(in) & 7; k; k--) {
			u32 at = next(in) % (p.length ? p.length : 1);
			p.data[at] = next(in);
		}
	p.tag = 0;
	p.gso_size = 0;
	pass(i, arrives, &p);
}

static void world_end(void)
{
	struct command c = { .kind = COMMAND_EXPIRE, .linger_ns = 60000000000u, .idle_ns = 30000000000u };
	u32 left = 0;

	for (int turn = 0; turn < 6; turn++) {
		time_passes(70000000000u);
		for (int i = 0; i < HOSTS; i++) {
			agent_command(host[i], &c);
			drain(host[i]);
		}
	}
	for (int i = 0; i < HOSTS; i++)
		left += agent_entries(host[i]);
	if (left)
		abort(); /* somebody can make us keep things for ever */
	for (int i = 0; i < HOSTS; i++)
		agent_free(host[i]);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, size };

	world_start();
	for (int i = 0; i < STEPS && in.left; i++)
		step(&in);
	world_end();
	return 0;
}
