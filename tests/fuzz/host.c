/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One host, and what was once captured beside it: a libFuzzer target over the host library.
 *
 * The input is a list of records (enum record): what the host is, then what happens to it.  record.py makes them of captures of
 * real networks; libFuzzer changes, cuts and mixes them.  Memory is watched by sanitizers.  Besides, a segment whose
 * sums were right leaves with right sums, and when all is over the tables are empty.
 */
#include <stddef.h>

#define port_random random_of_the_library
#define port_tagged no_tag
#define port_put_tag mark_put
#include "port.h"
#undef port_random
#undef port_tagged
#undef port_put_tag

enum { DRAWN = 8, TAGGED = 256 };
static u32 drawn[DRAWN], draws, taken;
static u64 tagged[TAGGED];

/* What a host drew when it was captured, so that what comes back to it finds its sessions; then anything.  But not the nonce of
 * another session, which nobody ever draws. */
INLINE u32 port_random(void)
{
	static u32 before;
	u32 number = taken < draws ? drawn[taken++] : random_of_the_library();
	u64 nonces[] = { (u64)before << 32 | number | 1, (u64)number << 32 | before | 1 };

	if (port_session(&nonces[0]) || port_session(&nonces[1]))
		number = random_of_the_library();
	return before = number;
}

/* A tag is an option where the host says so, as with DPDK. */
INLINE u64 port_tagged(u32 number)
{
	u64 nonce = tagged[number % TAGGED];
	return nonce && (u32)(nonce >> 8) == number ? nonce : 0;
}
INLINE u32 port_put_tag(struct packet *p, const u64 *nonce)
{
	if (!(here->config.flags & CONFIG_TAG_OPTION))
		return mark_put(p, nonce);
	u32 number = (u32)(*nonce >> 8);
	tagged[number % TAGGED] = *nonce;
	return number;
}

/* Once each, or clang is busy for minutes. */
enum way agent_egress(struct agent *a, struct packet *p) __attribute__((noinline));
enum way agent_ingress(struct agent *a, struct packet *p) __attribute__((noinline));
u32 agent_command(struct agent *a, const struct command *c) __attribute__((noinline));
#include "agent.c"

/* In captures: the first byte of a record, modulo RECORDS.  Numbers are in network order. */
enum record {
	ADDRESS,        /* be32: the host has this address, too */
	POLICY,         /* flags (1 bypass, 2 edge), n, be32[n]: a chain for every SYN */
	KEY,            /* 64 bytes: SHA-256 states; messages are signed */
	OPTIONS,        /* flags (1 tags by option), throttle in kB, 0: none */
	DRAW,           /* be32: the next random number */
	PAUSE,          /* be16: ms */
	ARRIVES,        /* be16 length, frame: comes from the wire; is forwarded if it is for somebody else */
	SIGNED,         /* the same, but a message in it is signed first */
	LEAVES,         /* be16 length, frame: from the local stack */
	COMMAND,        /* struct asked */
	RECORDS
};

struct asked {
	u8 kind, flags, side, chain_length;
	be32 txid, right_anchor, chain[MAX_MIDDLEBOXES];
	u64 nonce, peer;
} __attribute__((packed));

enum { STEPS = 400, LOOK_MS = 70000, PAUSES = 6 };

static struct agent *host;
static u64 now;

struct input {
	const u8 *at;
	size_t left;
};

/* The next n bytes; zeros where there are no more. */
static void take(struct input *in, void *to, u32 n)
{
	u32 have = in->left < n ? (u32)in->left : n;

	memcpy(to, in->at, have);
	memset((u8 *)to + have, 0, n - have);
	in->at += have;
	in->left -= have;
}

static u8 take8(struct input *in)
{
	u8 byte;
	take(in, &byte, 1);
	return byte;
}

static u16 take16(struct input *in)
{
	be16 two;
	take(in, &two, 2);
	return be16_of(two);
}

static be32 take32(struct input *in)
{
	be32 four;
	take(in, &four, 4);
	return four;
}

/* ---- frames ---- */

static struct wire_ip *ip_of(struct packet *p) { return (struct wire_ip *)(p->data + AT_IP); }

/* A whole TCP segment in a frame of its length. */
static int is_whole(struct packet *p)
{
	const struct wire_ethernet *ethernet = (void *)p->data;
	const struct wire_ip *ip = ip_of(p);

	return p->length >= AT_OPTIONS && ethernet->type == be16_of(ETHERTYPE_IPV4) && ip->version_length == 0x45 &&
	       ip->protocol == PROTOCOL_TCP && be16_of(ip->total_length) == p->length - AT_IP && !(ip->fragment & be16_of(0x3fff));
}

static u32 summed(const u8 *at, u32 n, u32 sum)
{
	for (u32 i = 0; i < n; i++)
		sum += i & 1 ? at[i] : (u32)at[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Shares no code with the core: zero if both sums are right. */
static u32 sums_wrong(struct packet *p)
{
	u32 tcp = p->length - AT_TCP, pseudo = summed((u8 *)&ip_of(p)->src, 8, PROTOCOL_TCP + tcp);

	return (summed(p->data + AT_IP, 20, 0) != 0xffff) | (summed(p->data + AT_TCP, tcp, pseudo) != 0xffff) << 1;
}

static void check(struct packet *p)
{
	if (is_whole(p) && sums_wrong(p))
		abort(); /* a segment with a wrong sum has left */
}

static void drain(int look)
{
	struct event event;

	for (struct packet *p; (p = agent_sent(host));) {
		if (look)
			check(p);
		free(p);
	}
	while (agent_event(host, &event))
		;
}

/* Signs what the message in a segment says, so that changes of it get beyond that. */
static void sign(struct packet *p)
{
	u32 at = AT_TCP + (u32)(p->data[AT_TCP + 12] >> 4) * 4;
	u32 bytes = p->length > at ? p->length - at : 0;

	if (bytes < sizeof(struct setup_message) || bytes > MAX_MESSAGE + SIGNATURE_BYTES || !host->key[0].valid)
		return;
	here = host;
	struct scratch *x = &host->scratch;
	u32 length = bytes - SIGNATURE_BYTES;
	memcpy(x->message, p->data + at, bytes);
	((struct message_header *)x->message)->length = be16_of(length);
	((struct message_header *)x->message)->flags = MESSAGE_SIGNED;
	if (message_digest(length, 0))
		return;
	memcpy(p->data + at, x->message, length);
	for (u32 i = 0; i < 8; i++)
		store32(p->data + at + length + 4 * i, x->sha.state[i]);
}

static int is_mine(be32 address)
{
	for (u32 i = 0; i < host->config.interface_count; i++)
		if (host->config.interfaces[i].address == address)
			return 1;
	return 0;
}

static void leaves(struct packet *p, int look)
{
	enum way way = agent_egress(host, p);

	if (look && (way == WAY_ON || way == WAY_WIRE || way == WAY_LOCAL))
		check(p);
	drain(look);
}

static void arrives(struct packet *p, int look)
{
	enum way way = agent_ingress(host, p);

	if (look && way != WAY_DROPPED)
		check(p);
	drain(look);
	if (way == WAY_ON && p->length >= AT_TCP && !is_mine(ip_of(p)->dst))
		leaves(p, look);
}

static void frame(struct input *in, enum record kind)
{
	static struct packet p;

	memset(&p, 0, offsetof(struct packet, data));
	p.length = take16(in);
	if (p.length > PACKET_BYTES / 2)
		p.length %= PACKET_BYTES / 2;
	take(in, p.data, p.length);
	if (kind == SIGNED)
		sign(&p);
	int whole = is_whole(&p);
	if (whole)
		checksum_anew(&p);
	if (kind == LEAVES)
		leaves(&p, whole);
	else
		arrives(&p, whole);
}

/* ---- the host, and its daemon ---- */

static void policy(struct input *in)
{
	struct config *config = agent_config(host);
	struct policy *at = agent_policy(host, config->policy_slots);
	u8 flags = take8(in);

	*at = (struct policy){ .id = 1 + config->policy_slots, .insns = 1, .filter = { { 6, 0, 0, 1 } } };
	at->on_no_agent = flags & 1;
	at->ends = flags >> 1 & 1;
	at->chain_length = take8(in) % (MAX_MIDDLEBOXES + 1);
	for (u32 i = 0; i < at->chain_length; i++)
		at->chain[i] = take32(in);
	config->policy_slots = config->policy_slots < MAX_POLICIES ? config->policy_slots + 1 : 1;
}

static void key(struct input *in)
{
	u32 *words = host->key[0].inner;

	for (u32 i = 0; i < 16; i++)
		words[i] = be32_of(take32(in));
	host->key[0].valid = 1;
	host->config.domain[0].sign = 1;
}

static void address(struct input *in)
{
	struct config *config = agent_config(host);
	u32 i = config->interface_count % MAX_INTERFACES;

	config->interfaces[i] = (struct interface){ 1 + i, take32(in) };
	config->interface_count = i + 1;
}

static void options(struct input *in)
{
	u8 flags = take8(in), throttle = take8(in);

	host->config.flags = CONFIG_EVENTS | (flags & 1 ? CONFIG_TAG_OPTION : 0);
	host->config.throttle = throttle ? throttle * 1024u + 1 : 0;
}

static void draw(u32 number)
{
	if (taken == draws)
		taken = draws = 0;
	if (draws < DRAWN)
		drawn[draws++] = number;
}

static void command(struct input *in)
{
	struct asked asked;

	take(in, &asked, sizeof(asked));
	struct command c = { .kind = asked.kind % COMMANDS, .flags = asked.flags, .side = asked.side & 1, .nonce = asked.nonce,
			     .peer = asked.peer, .right_anchor = asked.right_anchor, .txid = be32_of(asked.txid), .ifindex = 1 };
	c.chain_length = asked.chain_length % (MAX_MIDDLEBOXES + 1); /* as the daemon checks */
	memcpy(c.chain, asked.chain, sizeof(c.chain));
	c.tuple.src = host->config.interfaces[0].address;
	agent_command(host, &c);
	drain(1);
}

static void step(struct input *in)
{
	enum record kind = take8(in) % RECORDS;

	switch (kind) {
	case ADDRESS: address(in); break;
	case POLICY: policy(in); break;
	case KEY: key(in); break;
	case OPTIONS: options(in); break;
	case DRAW: draw(be32_of(take32(in))); break;
	case PAUSE: agent_set_time(host, now += take16(in) * 1000000ull); break;
	case COMMAND: command(in); break;
	default: frame(in, kind);
	}
}

static void end(void)
{
	struct command c = { .kind = COMMAND_EXPIRE, .linger_ns = 60000000000u, .idle_ns = 30000000000u };

	for (int turn = 0; turn < PAUSES; turn++) {
		agent_set_time(host, now += LOOK_MS * 1000000ull);
		agent_command(host, &c);
		drain(1);
	}
	if (agent_entries(host))
		abort(); /* somebody can make it keep things for ever */
	agent_free(host);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, size };

	now = 1000000000;
	draws = taken = 0;
	memset(tagged, 0, sizeof(tagged));
	host = agent_new(0, 4711);
	host->config.interface_count = 0;
	agent_set_time(host, now);
	for (int i = 0; i < STEPS && in.left; i++)
		step(&in);
	end();
	return 0;
}
