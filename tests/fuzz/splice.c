/* SPDX-License-Identifier: Apache-2.0 */
/* What libdysco makes of an answer on the agent's socket: a libFuzzer target.  The input is what comes there, whoever sends it. */
#include "libdysco.c"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	char *answer = malloc(TEXT); /* as ask() gives it: of a heap block every byte behind the end is found */
	int ends[2];

	if (!answer || socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		abort();
	size = size > 2 * TEXT ? 2 * TEXT : size;
	agent = ends[0];
	if (send(ends[1], data, size, MSG_NOSIGNAL) < 0 || shutdown(ends[1], SHUT_WR))
		abort();
	if (exchange("?\n", answer) >= 0 && judge(answer) && !reason[0])
		abort(); /* refused, and nobody says why */
	close(ends[0]);
	close(ends[1]);
	agent = -1;
	free(answer);
	return 0;
}
