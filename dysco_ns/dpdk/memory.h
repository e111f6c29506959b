/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of tables: zeroed, in huge pages where there are any, taken from the system page by page as it is used. */
#ifndef DYSCO_DPDK_MEMORY_H
#define DYSCO_DPDK_MEMORY_H
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "types.h"

enum { HUGE_PAGE = 1 << 21 };

/* 0: there is no such amount. */
static void *memory_take(u64 bytes)
{
	u64 room = (bytes + HUGE_PAGE - 1) & ~(u64)(HUGE_PAGE - 1);

	if (bytes < HUGE_PAGE / 64)
		return calloc(1, bytes);
	void *at = mmap(0, room + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return 0;
	at = (void *)(((u64)at + HUGE_PAGE - 1) & ~(u64)(HUGE_PAGE - 1));
	madvise(at, room, MADV_HUGEPAGE); /* four-kilobyte pages do, more slowly */
	return at;
}

static void memory_random(void *to, u64 bytes)
{
	if (getrandom(to, bytes, 0) != (ssize_t)bytes)
		abort();
}

#endif
