/* SPDX-License-Identifier: Apache-2.0 */
/* sim FIRST LAST [trace | events FILE]: runs a range of seeds, each with a scenario drawn from it (draw.c); for sanitizers and
 * long searches.  A single one can be traced; what the agents tell can be written to a file (tests/model/test_replay.py). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* What the runs have had in them, for who wants to know that they did. */
static void report(const struct outcome *all)
{
	printf("%u proxies left, %u ends elsewhere, %u replays, %u sessions lost with a host, %u segments judged by firewalls, %u INVALID\n",
	       all->proxies_gone, all->moved, all->replayed, all->lost, all->judged, all->invalid);
}

int main(int argc, char **argv)
{
	uint32_t first = argc > 1 ? (uint32_t)atoi(argv[1]) : 1, last = argc > 2 ? (uint32_t)atoi(argv[2]) : first, wrong = 0;
	struct outcome all = {};

	if (argc > 4 && !strcmp(argv[3], "events") && !(sim_events = fopen(argv[4], "w")))
		return 2;
	for (uint32_t seed = first; seed <= last; seed++) {
		struct scenario scenario;
		struct outcome outcome;
		sim_scenario(seed, &scenario);
		scenario.trace = first == last && argc > 3 && !sim_events;
		if (sim_run(&scenario, &outcome)) {
			wrong++;
			printf("seed %u: %s\n", seed, outcome.wrong);
			fflush(stdout); /* who only wants the first need not wait for the rest */
		}
		all.packets += outcome.packets;
		all.proxies_gone += outcome.proxies_gone, all.moved += outcome.moved, all.replayed += outcome.replayed;
		all.lost += outcome.lost, all.judged += outcome.judged, all.invalid += outcome.invalid;
	}
	if (sim_events && fclose(sim_events))
		return 2;
	report(&all);
	printf("%u of %u wrong, %llu packets\n", wrong, last - first + 1, (unsigned long long)all.packets);
	return wrong != 0;
}
