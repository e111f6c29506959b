/* SPDX-License-Identifier: Apache-2.0 */
/* sim FIRST LAST [trace | events FILE]: runs a range of seeds, each with a scenario drawn from it; for sanitizers and long
 * searches.  A single one can be traced; what the agents tell can be written to a file (tests/model/test_replay.py). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static uint32_t draw(uint64_t *state, uint32_t below)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((*state >> 33) % below);
}

static struct scenario scenario_of(uint32_t seed)
{
	uint64_t x = seed;
	uint32_t lossy = draw(&x, 3), boxes = draw(&x, 6), chain = draw(&x, boxes + 1);

	return (struct scenario){
		.seed = seed,
		.middleboxes = boxes,
		.chain = chain,
		.sessions = 1 + draw(&x, 5),
		.bytes = { 1000 + draw(&x, 150000), 1000 + draw(&x, 150000) },
		.reconfigurations = draw(&x, 16),
		.loss_ppm = lossy ? draw(&x, 30000) : 0,
		.duplicate_ppm = lossy ? draw(&x, 10000) : 0,
		.reorder_ppm = lossy == 2 ? draw(&x, 30000) : 0,
		.delay_us = 50 + draw(&x, 5000),
		.jitter_us = lossy == 2 ? draw(&x, 500) : 0,
		.mss = 500 + draw(&x, 900),
		.window_shift = { draw(&x, 10), draw(&x, 10) },
		.timestamps = draw(&x, 4) != 0,
		.sack = draw(&x, 4) != 0,
		.gso = draw(&x, 2),
		.deaf = boxes > chain && draw(&x, 4) == 0 ? chain + 1 : 0,
		.calm = draw(&x, 3) == 0,
		.sign = draw(&x, 3) == 0,
		.slow = draw(&x, 3) == 0,
		.ports = draw(&x, 4) ? 0 : 8,
	};
}

int main(int argc, char **argv)
{
	uint32_t first = argc > 1 ? (uint32_t)atoi(argv[1]) : 1, last = argc > 2 ? (uint32_t)atoi(argv[2]) : first, wrong = 0;
	uint64_t packets = 0;

	if (argc > 4 && !strcmp(argv[3], "events") && !(sim_events = fopen(argv[4], "w")))
		return 2;
	for (uint32_t seed = first; seed <= last; seed++) {
		struct scenario scenario = scenario_of(seed);
		struct outcome outcome;
		scenario.trace = first == last && argc > 3 && !sim_events;
		if (sim_run(&scenario, &outcome)) {
			wrong++;
			printf("seed %u: %s\n", seed, outcome.wrong);
			fflush(stdout); /* who only wants the first need not wait for the rest */
		}
		packets += outcome.packets;
	}
	if (sim_events && fclose(sim_events))
		return 2;
	printf("%u of %u wrong, %llu packets\n", wrong, last - first + 1, (unsigned long long)packets);
	return wrong != 0;
}
