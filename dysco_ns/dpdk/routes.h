/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the kernel of this namespace for the way to an address: interface, neighbour and our own address there.
 *
 * The kernel answers while it is asked (rtnetlink), in some ten microseconds; the answer is cached in the table of next
 * hops, which the daemon keeps true.
 */
#ifndef DYSCO_DPDK_ROUTES_H
#define DYSCO_DPDK_ROUTES_H
#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "types.h"

enum { DISCARD_PORT = 9, ROUTE_ANSWER = 4096 };

struct routes {
	int fd;                 /* < 0: nobody is asked, every next hop is the daemon's */
};

struct route_request {
	struct nlmsghdr header;
	union {
		struct rtmsg route;
		struct ndmsg neighbour;
	};
	u8 attributes[32];
};

static void routes_open(struct routes *r) { r->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE); }

static void route_attribute(struct route_request *q, u16 type, be32 value)
{
	struct rtattr *a = (struct rtattr *)((u8 *)q + NLMSG_ALIGN(q->header.nlmsg_len));

	a->rta_type = type;
	a->rta_len = RTA_LENGTH(sizeof(value));
	memcpy(RTA_DATA(a), &value, sizeof(value));
	q->header.nlmsg_len = NLMSG_ALIGN(q->header.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

/* The answer of this type in `buffer`, 0: the kernel does not know. */
static struct nlmsghdr *route_talk(struct routes *r, const struct route_request *q, u16 type, u8 *buffer)
{
	if (send(r->fd, q, q->header.nlmsg_len, 0) < 0)
		return 0;
	ssize_t n = recv(r->fd, buffer, ROUTE_ANSWER, 0);
	struct nlmsghdr *answer = (struct nlmsghdr *)buffer;
	return n > 0 && NLMSG_OK(answer, (u32)n) && answer->nlmsg_type == type ? answer : 0;
}

static struct rtattr *route_find(struct nlmsghdr *answer, u32 body, u16 type)
{
	struct rtattr *a = (struct rtattr *)((u8 *)NLMSG_DATA(answer) + NLMSG_ALIGN(body));
	int left = (int)(answer->nlmsg_len - NLMSG_LENGTH(body));

	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == type)
			return a;
	return 0;
}

static u32 route_value(struct nlmsghdr *answer, u16 type, u32 otherwise)
{
	struct rtattr *a = route_find(answer, sizeof(struct rtmsg), type);
	u32 value = otherwise;

	if (a)
		memcpy(&value, RTA_DATA(a), sizeof(value));
	return value;
}

/* An empty datagram to the discard port makes the kernel look for a neighbour. */
static void route_look_for(be32 via)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(DISCARD_PORT), .sin_addr.s_addr = via };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	if (sendto(fd, "", 0, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		to.sin_port = 0; /* no route any more: the next hop stays unresolved */
	close(fd);
}

static void route_neighbour(struct routes *r, be32 via, struct next_hop *hop)
{
	struct route_request q = { .header = { NLMSG_LENGTH(sizeof(q.neighbour)), RTM_GETNEIGH, NLM_F_REQUEST, 0, 0 },
				   .neighbour = { .ndm_family = AF_INET, .ndm_ifindex = (int)hop->ifindex } };
	_Alignas(8) u8 buffer[ROUTE_ANSWER];

	route_attribute(&q, NDA_DST, via);
	struct nlmsghdr *answer = route_talk(r, &q, RTM_NEWNEIGH, buffer);
	struct rtattr *mac = answer ? route_find(answer, sizeof(struct ndmsg), NDA_LLADDR) : 0;
	if (!mac) {
		route_look_for(via);
		return;
	}
	memcpy(hop->destination, RTA_DATA(mac), 6);
	hop->resolved = 1;
}

/* Fills in a next hop, all but our own Ethernet address.  < 0: there is no route. */
static int routes_ask(struct routes *r, be32 address, be32 from, struct next_hop *hop)
{
	struct route_request q = { .header = { NLMSG_LENGTH(sizeof(q.route)), RTM_GETROUTE, NLM_F_REQUEST, 0, 0 },
				   .route = { .rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_src_len = from ? 32 : 0 } };
	_Alignas(8) u8 buffer[ROUTE_ANSWER];

	if (r->fd < 0)
		return -1;
	route_attribute(&q, RTA_DST, address);
	if (from)
		route_attribute(&q, RTA_SRC, from);
	struct nlmsghdr *answer = route_talk(r, &q, RTM_NEWROUTE, buffer);
	if (!answer)
		return -1;
	hop->address = address;
	hop->ifindex = route_value(answer, RTA_OIF, 0);
	hop->from = from ? from : route_value(answer, RTA_PREFSRC, 0);
	hop->bound = from != 0;
	route_neighbour(r, route_value(answer, RTA_GATEWAY, address), hop);
	return 0;
}

#endif
