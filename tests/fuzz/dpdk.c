/* SPDX-License-Identifier: Apache-2.0 */
/* The DPDK data path: frames from its ports, and requests on its socket.  A libFuzzer target.
 *
 * The input is a list of records: an action, a length, bytes.  The ports are DPDK's null ports, which swallow what leaves;
 * next hops are those that an input puts into the table.  Between inputs all sessions are forgotten, and the tables must be
 * empty then.
 */
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "environment.h"
#include "ports.h"
#include "worker.h"

enum action { REQUEST, ARRIVES, LEAVES, ACTIONS };
enum { SESSIONS = 64, LONGEST = 1500, MEMORY = 64, COMMAND_FRAME = 512, LOOKS = 8 };

static struct shared *shared;
static struct agent *agent;  /* of its one core */
static struct request request;

struct input {
	const u8 *at;
	size_t left;
};

static u32 length_of(struct input *in)
{
	u32 n = in->left > 1 ? (u32)in->at[0] << 8 | in->at[1] : 0;
	u32 head = in->left < 2 ? (u32)in->left : 2;

	in->at += head;
	in->left -= head;
	return n > in->left ? (u32)in->left : n;
}

/* The host sends on what is not for itself. */
static void forwarded(void)
{
	struct queue *to = &agent->pair[0].host;
	struct rte_mbuf *frames[QUEUE_ROOM];
	u32 n = to->waiting;
	be32 dst;

	memcpy(frames, to->mbuf, n * sizeof(*frames));
	to->waiting = 0;
	for (u32 i = 0; i < n; i++) {
		memcpy(&dst, rte_pktmbuf_mtod_offset(frames[i], u8 *, AT_IP + 16), 4);
		if (dst == shared->config.interfaces[0].address)
			queue_add(to, frames[i]);
		else
			agent_frames(agent, &agent->pair[0], &frames[i], 1, 0);
	}
}

static void frame(const u8 *bytes, u32 n, int arriving)
{
	struct rte_mbuf *p = rte_pktmbuf_alloc(shared->pool);
	void *data = p ? rte_pktmbuf_append(p, (u16)n) : 0;

	if (!data)
		abort(); /* frames get lost in here */
	memcpy(data, bytes, n);
	agent_frames(agent, &agent->pair[0], &p, 1, (u32)arriving);
	if (arriving)
		forwarded();
	agent_flush(agent);
}

static void asked(const u8 *bytes, u32 n)
{
	request.bytes = n > REQUEST_BYTES ? REQUEST_BYTES : n;
	memcpy(request.text, bytes, request.bytes);
	request.answered = 0;
	for (int turn = 0; turn < LOOKS && answer(shared, &request); turn++)
		;
	if (request.answered > ANSWER_BYTES)
		abort();
}

static void step(struct input *in)
{
	enum action action = *in->at % ACTIONS;

	in->at++;
	in->left--;
	u32 n = length_of(in);
	if (action == REQUEST)
		asked(in->at, n);
	else
		frame(in->at, n > LONGEST ? LONGEST : n, action == ARRIVES);
	in->at += n;
	in->left -= n;
}

static u32 entries(void)
{
	return agent->egress.count + agent->ingress.count + agent->reconfig.count + agent->sessions.table.count;
}

static void forget(void)
{
	static u8 bytes[COMMAND_FRAME];
	struct command c = { .kind = COMMAND_EXPIRE, .linger_ns = 1, .idle_ns = 1 };

	memcpy(bytes + AT_IP, &c, sizeof(c));
	for (int turn = 0, more = 1; turn < LOOKS && (more || entries()); turn++)
		agents_command(shared, bytes, sizeof(bytes), &more);
	if (entries())
		abort(); /* somebody can make it keep things for ever */
}

/* What the daemon has put there is none of the next input's. */
static void reset(void)
{
	shared->config = (struct config){};
	memset(shared->policy, 0, sizeof(shared->policy));
	memset(shared->type, 0, sizeof(shared->type));
	memset(shared->key, 0, sizeof(shared->key));
	memset(agent->counter, 0, sizeof(agent->counter));
	agent->heard = agent->told;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static char prefix[32];
	struct options o = { .wire = { "net_null0" }, .host = { "net_null1" }, .pairs = 1, .prefix = prefix, .cores = 1,
			     .processor = { -1 }, .sessions = SESSIONS, .memory_mb = MEMORY, .no_huge = 1 };

	(void)argc;
	(void)argv;
	snprintf(prefix, sizeof(prefix), "dysco-fuzz-%d", (int)getpid());
	environment_start(&o);
	shared = agents_new(1, SESSIONS);
	if (!shared)
		return 1;
	agent = shared->agent[0];
	close(shared->routes.fd);
	shared->routes.fd = -1; /* no address of an input may be looked for */
	ports_start(shared, &o);
	return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, size };

	while (in.left)
		step(&in);
	forget();
	reset();
	return 0;
}
