/* SPDX-License-Identifier: Apache-2.0 */
/* dysco-dpdk: the core between pairs of ports, on one core or several, until it is told to end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

#include <rte_launch.h>
#include <rte_lcore.h>

#include "control.h"
#include "environment.h"
#include "ports.h"
#include "worker.h"

/* How an idle core waits: it looks again at once for a while, then it sleeps, longer and longer. */
enum { LOOKS_AT_ONCE = 64, LEAST_SLEEP_NS = 5000, MOST_SLEEP_NS = 100000 };

static volatile sig_atomic_t ended;
static u64 frames_of_all;

/* What each core is told when it starts. */
struct work {
	struct shared *shared;
	const struct options *options;
	struct control *control;        /* 0: nobody drives it */
};

static void end(int number)
{
	(void)number;
	ended = 1;
}

static void idle(struct agent *a, u32 looks)
{
	u32 longer = looks > LOOKS_AT_ONCE ? looks - LOOKS_AT_ONCE : 0;
	struct timespec pause = { 0, RTE_MIN((long)LEAST_SLEEP_NS * longer, (long)MOST_SLEEP_NS) };

	if (!longer) {
		rte_pause();
		return;
	}
	control_let_go(a);
	nanosleep(&pause, 0);
	control_take(a);
}

static int enough(const struct work *w)
{
	return ended || (w->control && control_stopped(w->control)) ||
	       (w->options->packets && __atomic_load_n(&frames_of_all, __ATOMIC_RELAXED) >= w->options->packets);
}

/* A core's life. */
static int run(void *context)
{
	const struct work *w = context;
	struct agent *a = w->shared->agent[rte_lcore_id()];

	prctl(PR_SET_TIMERSLACK, 1000);
	control_take(a);
	for (u32 looks = 0; !enough(w);) {
		u32 n = agent_turn(a);
		looks = n ? 0 : looks + 1;
		if (n && w->options->packets)
			__atomic_fetch_add(&frames_of_all, n, __ATOMIC_RELAXED);
		control_look(a);
		if (!n && !w->options->poll)
			idle(a, looks);
	}
	control_let_go(a);
	return 0;
}

int main(int argc, char **argv)
{
	static char statistics[ANSWER_BYTES];
	struct options options;
	struct work work = { .options = &options };

	options_read(&options, argc, argv);
	environment_start(&options);
	signal(SIGINT, end);
	signal(SIGTERM, end);
	work.shared = agents_new(options.cores, options.sessions);
	if (!work.shared)
		fail(1, "no memory for %u sessions", options.sessions);
	ports_start(work.shared, &options);
	if (options.socket && !(work.control = control_open(work.shared, options.socket)))
		fail(1, "socket %s: %s", options.socket, strerror(errno));
	puts("ready");
	fflush(stdout);
	rte_eal_mp_remote_launch(run, &work, CALL_MAIN);
	rte_eal_mp_wait_lcore();
	if (work.control)
		control_close(work.control);
	answer_statistics(work.shared, statistics, sizeof(statistics));
	if (options.json)
		fputs(statistics, stdout);
	ports_stop(work.shared);
	return 0;
}
