/* SPDX-License-Identifier: Apache-2.0 */
/* A user-space bridge: reads frames from one interface by AF_PACKET and sends them out by another, both ways.
 *
 * With a shift it is a stateless NAT as well: the source port of TCP segments that go right is so much higher, and their
 * answers' destination port lower again.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRAME = 256 * 1024, BURST = 64, BUFFER = 8 << 20 };

/* One side: where frames come from, and which address those have that leave here. */
struct side {
	int fd;
	unsigned char to[ETH_ALEN];
	unsigned long long forwarded;
};

static struct side sides[2];
static unsigned shift;
static volatile sig_atomic_t stopping;

static void on_signal(int number) { (void)number, stopping = 1; }

static void fail(const char *what)
{
	fprintf(stderr, "bridge: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* An interface, and the address of its peer, where frames are to go. */
static void side_open(struct side *s, const char *device, const char *peer)
{
	struct sockaddr_ll here = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP) };
	struct packet_mreq all = { .mr_type = PACKET_MR_PROMISC };
	struct ifreq request = { 0 };
	int on = 1, buffer = BUFFER;

	s->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		fail("AF_PACKET");
	here.sll_ifindex = all.mr_ifindex = (int)if_nametoindex(device);
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", peer);
	if (!here.sll_ifindex || ioctl(s->fd, SIOCGIFHWADDR, &request))
		fail(here.sll_ifindex ? peer : device);
	memcpy(s->to, request.ifr_hwaddr.sa_data, ETH_ALEN);
	setsockopt(s->fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer));
	if (setsockopt(s->fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(s->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) ||
	    setsockopt(s->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    bind(s->fd, (struct sockaddr *)&here, sizeof(here)))
		fail(device);
}

/* RFC 1624: the checksum after one 16-bit word has changed. */
static uint16_t mended(uint16_t checksum, uint16_t before, uint16_t after)
{
	uint32_t sum = (uint16_t)~checksum + (uint16_t)~before + (uint32_t)after;

	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t) ~((sum & 0xffff) + (sum >> 16));
}

/* Moves the client's port.  A partial checksum covers no ports yet. */
static void translate(unsigned char *frame, size_t length, int rightward, int partial)
{
	struct iphdr *ip = (struct iphdr *)(frame + ETH_HLEN);

	if (!shift || length < ETH_HLEN + sizeof(*ip) || ip->protocol != IPPROTO_TCP || ip->frag_off & htons(0x1fff))
		return;
	size_t at = ETH_HLEN + ip->ihl * 4u;
	if (length < at + sizeof(struct tcphdr))
		return;
	struct tcphdr *tcp = (struct tcphdr *)(frame + at);
	uint16_t *port = rightward ? &tcp->source : &tcp->dest, before = *port;
	*port = htons((uint16_t)(ntohs(before) + (rightward ? shift : 65536 - shift)));
	if (!partial)
		tcp->check = mended(tcp->check, before, *port);
}

static void forward(int from)
{
	static unsigned char buffer[FRAME];
	struct virtio_net_hdr *offload = (struct virtio_net_hdr *)buffer;
	unsigned char *frame = buffer + sizeof(*offload);
	struct side *to = &sides[!from];

	for (int i = 0; i < BURST; i++) {
		ssize_t n = recv(sides[from].fd, buffer, sizeof(buffer), MSG_DONTWAIT);
		if (n < (ssize_t)(sizeof(*offload) + ETH_HLEN))
			return;
		translate(frame, (size_t)n - sizeof(*offload), !from, offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
		memcpy(frame, to->to, ETH_ALEN);
		if (send(to->fd, buffer, (size_t)n, 0) == n)
			to->forwarded++;
	}
}

int main(int argc, char **argv)
{
	struct sigaction stop = { .sa_handler = on_signal };
	struct pollfd watched[2];

	if (argc < 5 || argc > 6 || (argc == 6 && (shift = (unsigned)atoi(argv[5])) > 65535)) {
		fputs("usage: bridge LEFT LEFT_PEER RIGHT RIGHT_PEER [PORT_SHIFT]\n", stderr);
		return 2;
	}
	for (int i = 0; i < 2; i++) {
		side_open(&sides[i], argv[1 + 2 * i], argv[2 + 2 * i]);
		watched[i] = (struct pollfd){ sides[i].fd, POLLIN, 0 };
	}
	sigaction(SIGTERM, &stop, 0);
	sigaction(SIGINT, &stop, 0);
	puts("ready");
	fflush(stdout);
	while (!stopping && (poll(watched, 2, -1) >= 0 || errno == EINTR))
		for (int i = 0; i < 2; i++)
			if (watched[i].revents)
				forward(i);
	printf("left %llu right %llu\n", sides[0].forwarded, sides[1].forwarded);
	return 0;
}
