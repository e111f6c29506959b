/* SPDX-License-Identifier: Apache-2.0 */
/* dysco-dpdk: the core between pairs of ports, one core, until it is told to end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

#include "control.h"
#include "ports.h"
#include "worker.h"

/* How an idle core waits: it looks again at once for a while, then it sleeps, longer and longer. */
enum { LOOKS_AT_ONCE = 64, LEAST_SLEEP_NS = 5000, MOST_SLEEP_NS = 100000 };

static volatile sig_atomic_t ended;

static void end(int number)
{
	(void)number;
	ended = 1;
}

static void idle(struct control *c, u32 looks)
{
	u32 longer = looks > LOOKS_AT_ONCE ? looks - LOOKS_AT_ONCE : 0;
	struct timespec pause = { 0, RTE_MIN((long)LEAST_SLEEP_NS * longer, (long)MOST_SLEEP_NS) };

	if (!longer) {
		rte_pause();
		return;
	}
	if (c)
		control_let_go(c);
	nanosleep(&pause, 0);
	if (c)
		control_take(c);
}

/* One look at every port; returns frames. */
static u32 turn(struct agent *a)
{
	struct rte_mbuf *frames[BURST];
	u32 all = 0;

	for (u32 i = 0; i < a->pairs; i++) {
		struct pair *pair = &a->pair[i];
		u32 n = rte_eth_rx_burst(pair->host.port, 0, frames, BURST);
		if (n)
			agent_egress(a, pair, frames, n);
		all += n;
		n = rte_eth_rx_burst(pair->wire.port, 0, frames, BURST);
		if (n)
			agent_ingress(a, pair, frames, n);
		all += n;
	}
	agent_flush(a);
	return all;
}

static void run(struct agent *a, struct control *c, const struct options *o)
{
	u64 frames = 0;

	if (c)
		control_take(c);
	for (u32 looks = 0; !ended && !(c && control_stopped(c)) && (!o->packets || frames < o->packets);) {
		u32 n = turn(a);
		frames += n;
		looks = n ? 0 : looks + 1;
		if (c)
			control_look(c);
		if (!n && !o->poll)
			idle(c, looks);
	}
	if (c)
		control_let_go(c);
}

int main(int argc, char **argv)
{
	static char statistics[ANSWER_BYTES];
	struct options options;
	struct control *control = 0;

	options_read(&options, argc, argv);
	environment_start(&options);
	signal(SIGINT, end);
	signal(SIGTERM, end);
	prctl(PR_SET_TIMERSLACK, 1000);
	struct agent *agent = agent_new(options.sessions);
	if (!agent)
		fail(1, "no memory for %u sessions", options.sessions);
	ports_start(agent, &options);
	if (options.socket && !(control = control_open(agent, options.socket)))
		fail(1, "socket %s: %s", options.socket, strerror(errno));
	puts("ready");
	fflush(stdout);
	run(agent, control, &options);
	if (control)
		control_close(control);
	answer_statistics(agent, statistics, sizeof(statistics));
	if (options.json)
		fputs(statistics, stdout);
	ports_stop(agent);
	return 0;
}
