/* SPDX-License-Identifier: Apache-2.0 */
/* longline: what is routed into a TUN device comes out of it again some time later, whole (GSO included), in order.
 *
 * A delay for kernels without netem.  Who routes what into the device, and onwards, is the caller's business.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAME = 65535 + 64, WAITING = 1 << 15, QUEUE = 10000 };

struct frame {
	uint64_t due_ns;
	size_t length;
	char *data;
};

static struct frame waiting[WAITING];   /* a ring: `out` leaves next, `in` is free */
static size_t in, out;
static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
	(void)number;
	stopping = 1;
}

static void fatal(const char *what)
{
	fprintf(stderr, "longline: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The device takes what the sender's stack would give a network card: segments are cut by nobody on the way. */
static int open_device(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK), control = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || control < 0)
		fatal("/dev/net/tun");
	snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
	if (ioctl(fd, TUNSETIFF, &request) || ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN))
		fatal(name);
	request.ifr_qlen = QUEUE;
	if (ioctl(control, SIOCSIFTXQLEN, &request))
		fatal(name);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(control, SIOCSIFFLAGS, &request))
		fatal(name);
	close(control);
	return fd;
}

/* All that has come; what finds no room is left to the device's queue. */
static void take(int fd, uint64_t delay_ns)
{
	static char buffer[FRAME];
	ssize_t n;

	while (in - out < WAITING && (n = read(fd, buffer, sizeof(buffer))) > 0) {
		struct frame *f = &waiting[in % WAITING];

		f->data = malloc((size_t)n);
		if (!f->data)
			fatal("memory");
		memcpy(f->data, buffer, (size_t)n);
		f->length = (size_t)n;
		f->due_ns = now_ns() + delay_ns;
		in++;
	}
}

static void give(int fd)
{
	for (uint64_t now = now_ns(); out < in && waiting[out % WAITING].due_ns <= now; out++) {
		struct frame *f = &waiting[out % WAITING];

		if (write(fd, f->data, f->length) < 0 && errno != EINVAL)  /* what is no packet for this kernel is lost */
			fatal("write");
		free(f->data);
	}
}

int main(int argc, char **argv)
{
	double delay_ms = argc == 3 ? atof(argv[2]) : -1;

	if (delay_ms < 0) {
		fprintf(stderr, "usage: longline DEVICE MILLISECONDS\n");
		return 2;
	}
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	int fd = open_device(argv[1]);
	puts("ready");
	fflush(stdout);
	while (!stopping) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		struct timespec until = { .tv_sec = 1 };

		if (out < in) {
			uint64_t due = waiting[out % WAITING].due_ns, now = now_ns();
			uint64_t left = due > now ? due - now : 0;
			until = (struct timespec){ .tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u) };
		}
		if (in - out == WAITING)
			wait.events = 0;
		if (ppoll(&wait, 1, &until, NULL) < 0 && errno != EINTR)
			fatal("poll");
		take(fd, (uint64_t)(delay_ms * 1e6));
		give(fd);
	}
	return 0;
}
