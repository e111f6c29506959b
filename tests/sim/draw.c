/* SPDX-License-Identifier: Apache-2.0 */
/* The scenario of a seed. */
#include "sim.h"

static uint32_t draw(uint64_t *state, uint32_t below)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((*state >> 33) % below);
}

static struct scenario drawn(uint32_t seed)
{
	uint64_t x = seed;
	uint32_t lossy = draw(&x, 3), boxes = draw(&x, 6), chain = draw(&x, boxes + 1);

	struct scenario c = {
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
		.gso = draw(&x, 3),
		.deaf = boxes > chain && draw(&x, 4) == 0 ? chain + 1 : 0,
		.calm = draw(&x, 3) == 0,
		.sign = draw(&x, 3) == 0,
		.slow = draw(&x, 3) == 0,
		.ports = draw(&x, 4) ? 0 : 8,
	};
	c.nat = draw(&x, 4) == 0 && boxes ? 1 + draw(&x, boxes) : 0;
	c.resize = draw(&x, 3) == 0;
	c.replays = draw(&x, 3) ? 0 : 1 + draw(&x, 30);
	if (c.calm)
		return c;
	c.proxy = draw(&x, 3) == 0 && boxes ? 1 + draw(&x, boxes) : 0;
	c.proxy = c.proxy == c.nat || c.deaf ? 0 : c.proxy;
	c.dies = draw(&x, 8) == 0 && boxes ? 1 + draw(&x, boxes) : 0;
	c.moves = draw(&x, 4) ? 0 : 1 + draw(&x, 6);
	return c;
}

void sim_scenario(uint32_t seed, struct scenario *scenario) { *scenario = drawn(seed); }
