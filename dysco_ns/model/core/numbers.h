/* SPDX-License-Identifier: Apache-2.0 */
/* Byte strings, each kept once: equal ones have the same number, so that a state of the search is a few numbers and
 * nothing of it is lost.  What has a number stays as it is. */
#ifndef NUMBERS_H
#define NUMBERS_H
#include <stdint.h>

struct bytes {
	uint32_t length;
	uint8_t at[];
};

struct numbers {
	struct bytes **kept;            /* by number, from 1 on */
	uint32_t count, room;
	uint32_t *slot, slots;          /* a hash table of numbers; a power of two */
};

/* Exits with a message when memory runs out. */
uint32_t number_of(struct numbers *n, const void *bytes, uint32_t length);
const struct bytes *bytes_of(const struct numbers *n, uint32_t number);

#endif
