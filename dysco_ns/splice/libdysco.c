/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the five-tuples of sockets and tells the agent of this network namespace about them. */
#define _GNU_SOURCE
#include "libdysco.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { TEXT = 512, TIMEOUT_S = 5, MOST_MIDDLEBOXES = 8 };

static __thread char reason[TEXT];
static __thread int agent = -1;

struct end {
	char address[INET_ADDRSTRLEN];
	int port;
};

int dysco_abi_version(void) { return DYSCO_ABI_VERSION; }

const char *dysco_error(void) { return reason; }

static int failed(int number, const char *why)
{
	snprintf(reason, sizeof(reason), "%s", why);
	errno = number;
	return -1;
}

static int end_of(const struct sockaddr_storage *from, struct end *to)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;

	if (from->ss_family != AF_INET)
		return failed(EAFNOSUPPORT, "only IPv4 sockets can be spliced");
	inet_ntop(AF_INET, &in->sin_addr, to->address, sizeof(to->address));
	to->port = ntohs(in->sin_port);
	return 0;
}

static int ends_of(int fd, struct end *local, struct end *peer)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);

	if (getpeername(fd, (struct sockaddr *)&address, &length))
		return failed(errno, strerror(errno));
	if (end_of(&address, peer))
		return -1;
	length = sizeof(address);
	if (getsockname(fd, (struct sockaddr *)&address, &length))
		return failed(errno, strerror(errno));
	return end_of(&address, local);
}

static const char *socket_at_start;

__attribute__((constructor)) static void keep_environment(void)
{
	const char *given = getenv("DYSCO_SOCKET");

	socket_at_start = given ? strdup(given) : 0; /* some proxies clear their environment */
}

/* The agent's socket is named by the inode of the network namespace. */
static int agent_path(struct sockaddr_un *to)
{
	const char *now = getenv("DYSCO_SOCKET"), *given = now ? now : socket_at_start;
	struct stat namespace;
	int bytes;

	memset(to, 0, sizeof(*to));
	to->sun_family = AF_UNIX;
	if (given)
		bytes = snprintf(to->sun_path, sizeof(to->sun_path), "%s", given);
	else if (stat("/proc/self/ns/net", &namespace))
		return failed(errno, strerror(errno));
	else
		bytes = snprintf(to->sun_path, sizeof(to->sun_path), "/run/dysco/%lu.sock", (unsigned long)namespace.st_ino);
	return bytes < (int)sizeof(to->sun_path) ? 0 : failed(ENAMETOOLONG, "the path of the agent's socket is too long");
}

static int agent_connect(void)
{
	struct timeval limit = { TIMEOUT_S, 0 };
	struct sockaddr_un path;

	if (agent_path(&path))
		return -1;
	agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (agent < 0)
		return failed(errno, strerror(errno));
	setsockopt(agent, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (!connect(agent, (struct sockaddr *)&path, sizeof(path)))
		return 0;
	close(agent);
	agent = -1;
	return failed(ENOENT, "no Dysco agent in this network namespace");
}

/* One line there, one line back.  Returns the bytes of the answer, or -1 with errno. */
static int exchange(const char *request, char *answer)
{
	size_t length = strlen(request), have = 0;

	if (send(agent, request, length, MSG_NOSIGNAL) != (ssize_t)length)
		return -1;
	while (have < TEXT - 1 && !memchr(answer, '\n', have)) {
		ssize_t n = recv(agent, answer + have, TEXT - 1 - have, 0);
		if (n <= 0) {
			errno = n == 0 ? ECONNRESET : errno == EAGAIN ? ETIMEDOUT : errno;
			return -1;
		}
		have += (size_t)n;
	}
	answer[have] = 0;
	return (int)have;
}

/* Sends the request, once more over a fresh connection if the agent has been restarted since the last one. */
static int ask(const char *request, char *answer)
{
	for (int turn = 0; turn < 2; turn++) {
		if (agent < 0 && agent_connect())
			return -1;
		if (exchange(request, answer) >= 0)
			return 0;
		int number = errno;
		close(agent);
		agent = -1;
		if (number == ETIMEDOUT)
			return failed(ETIMEDOUT, "the Dysco agent did not answer in time");
	}
	return failed(ECONNRESET, "the Dysco agent went away");
}

/* The agent's answer: {"ok": true, ...} or {"ok": false, "error": "why", ...}. */
static int judge(char *answer)
{
	char *text = strstr(answer, "\"error\": \""), *end;
	int joined = strstr(answer, "\"joined\": true") != 0;

	if (strstr(answer, "\"ok\": true"))
		return 0;
	text = text ? text + strlen("\"error\": \"") : answer;
	end = strchr(text, '"');
	if (end)
		*end = 0;
	if (text == answer || !*text)
		return failed(EPROTO, "the Dysco agent gave an answer that is not understood");
	return failed(joined ? EALREADY : EPERM, text);
}

int dysco_splice_flags(int fd_a, int fd_b, int delta_ab, int delta_ba, unsigned flags)
{
	struct end a_local, a_peer, b_local, b_peer;
	char request[TEXT], answer[TEXT];

	reason[0] = 0;
	if (ends_of(fd_a, &a_local, &a_peer) || ends_of(fd_b, &b_local, &b_peer))
		return -1;
	snprintf(request, sizeof(request),
		 "{\"op\": \"splice\", \"in\": [\"%s\", %d, \"%s\", %d], \"out\": [\"%s\", %d, \"%s\", %d], "
		 "\"delta_ab\": %d, \"delta_ba\": %d, \"remove\": %s}\n",
		 a_peer.address, a_peer.port, a_local.address, a_local.port, b_local.address, b_local.port,
		 b_peer.address, b_peer.port, delta_ab, delta_ba, flags & DYSCO_JOIN_ONLY ? "false" : "true");
	return ask(request, answer) ? -1 : judge(answer);
}

int dysco_splice2(int fd_a, int fd_b, int delta_ab, int delta_ba)
{
	return dysco_splice_flags(fd_a, fd_b, delta_ab, delta_ba, 0);
}

int dysco_splice(int fd_in, int fd_out, int delta) { return dysco_splice2(fd_in, fd_out, delta, 0); }

/* Binds an unbound socket to the address from which it will reach the destination. */
static int bind_towards(int fd, const struct sockaddr_in *destination)
{
	struct sockaddr_in own = { 0 };
	socklen_t length = sizeof(own);

	if (getsockname(fd, (struct sockaddr *)&own, &length))
		return failed(errno, strerror(errno));
	if (own.sin_port && own.sin_addr.s_addr)
		return 0;
	if (own.sin_port)
		return failed(EINVAL, "the socket is bound to a port but to no address");
	int probe = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* asks the routing table; sends nothing */
	int reached = probe < 0 ? -1 : connect(probe, (const struct sockaddr *)destination, sizeof(*destination));
	if (!reached)
		reached = getsockname(probe, (struct sockaddr *)&own, &length);
	int number = errno;
	if (probe >= 0)
		close(probe);
	own.sin_port = 0;
	if (!reached && !bind(fd, (struct sockaddr *)&own, sizeof(own)))
		return 0;
	number = reached ? number : errno;
	return failed(number, strerror(number));
}

int dysco_next(int fd, const struct sockaddr_in *destination, const struct in_addr *middleboxes, int count)
{
	char request[TEXT], answer[TEXT], address[INET_ADDRSTRLEN];
	struct sockaddr_storage peer;
	struct sockaddr_in own;
	socklen_t length = sizeof(peer);

	reason[0] = 0;
	if (count < 0 || count > MOST_MIDDLEBOXES)
		return failed(EINVAL, "a chain has at most 8 middleboxes");
	if (destination->sin_family != AF_INET)
		return failed(EAFNOSUPPORT, "only IPv4 sessions can have a chain");
	if (!getpeername(fd, (struct sockaddr *)&peer, &length))
		return failed(EISCONN, "the socket is connected: its SYN has gone without a chain");
	length = sizeof(own);
	if (bind_towards(fd, destination) || getsockname(fd, (struct sockaddr *)&own, &length))
		return -1;
	inet_ntop(AF_INET, &own.sin_addr, address, sizeof(address));
	int at = snprintf(request, sizeof(request), "{\"op\": \"next\", \"tuple\": [\"%s\", %d, ", address, ntohs(own.sin_port));
	inet_ntop(AF_INET, &destination->sin_addr, address, sizeof(address));
	at += snprintf(request + at, sizeof(request) - (size_t)at, "\"%s\", %d], \"chain\": [", address, ntohs(destination->sin_port));
	for (int i = 0; i < count; i++) {
		inet_ntop(AF_INET, &middleboxes[i], address, sizeof(address));
		at += snprintf(request + at, sizeof(request) - (size_t)at, "%s\"%s\"", i ? ", " : "", address);
	}
	snprintf(request + at, sizeof(request) - (size_t)at, "]}\n");
	return ask(request, answer) ? -1 : judge(answer);
}
