/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of bulk. */
#define _GNU_SOURCE
#include "bulk.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"usage: bulk server --listen ADDRESS:PORT --report FILE [--interval-ms 100]\n"
	"                   [--after-seconds S, how long it goes on when the client has ended]\n"
	"       bulk client --connect ADDRESS:PORT --report FILE [--sessions N] [--seconds S] [--way up|down|both]\n"
	"                   [--message BYTES --every-us US] [--id BASE] [--seed N] [--drain-seconds 20]\n"
	"                   [--from-port PORT, one more for each session]\n"
	"       both: [--sndbuf BYTES] [--rcvbuf BYTES] [--congestion NAME]\n"
	"Sends known bytes through many TCP sessions and checks them at the other end.\n";

static void wrong(const char *why)
{
	fprintf(stderr, "bulk: %s\n%s", why, usage);
	exit(2);
}

static void set_address(const char *text)
{
	char host[64];
	int port;

	if (sscanf(text, "%63[^:]:%d", host, &port) != 2 || inet_pton(AF_INET, host, &bulk.address.sin_addr) != 1)
		wrong("an address is ADDRESS:PORT");
	bulk.address.sin_family = AF_INET;
	bulk.address.sin_port = htons((uint16_t)port);
}

static int ways_of(const char *text)
{
	if (!strcmp(text, "up"))
		return UP;
	if (!strcmp(text, "down"))
		return DOWN;
	if (strcmp(text, "both"))
		wrong("--way is up, down or both");
	return UP | DOWN;
}

void read_arguments(int argc, char **argv)
{
	static const struct option options[] = {
		{ "listen", 1, 0, 'a' },   { "connect", 1, 0, 'a' },  { "report", 1, 0, 'r' }, { "interval-ms", 1, 0, 'i' },
		{ "sessions", 1, 0, 'n' }, { "seconds", 1, 0, 't' },  { "way", 1, 0, 'w' },    { "message", 1, 0, 'm' },
		{ "every-us", 1, 0, 'e' }, { "id", 1, 0, 'b' },       { "seed", 1, 0, 's' },   { "drain-seconds", 1, 0, 'd' },
		{ "sndbuf", 1, 0, 'S' },   { "rcvbuf", 1, 0, 'R' },   { "congestion", 1, 0, 'c' }, { "help", 0, 0, 'h' },
		{ "from-port", 1, 0, 'p' }, { "after-seconds", 1, 0, 'A' }, { 0, 0, 0, 0 }
	};
	int option;

	if (argc < 2 || (strcmp(argv[1], "server") && strcmp(argv[1], "client")))
		wrong("say server or client");
	bulk.server = !strcmp(argv[1], "server");
	optind = 2;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'a': set_address(optarg); break;
		case 'r': bulk.report_path = optarg; break;
		case 'i': bulk.interval_ms = atoi(optarg); break;
		case 'n': bulk.count = (uint32_t)atoi(optarg); break;
		case 't': bulk.seconds = atof(optarg); break;
		case 'w': bulk.ways = ways_of(optarg); break;
		case 'm': bulk.message = (uint32_t)atoi(optarg); break;
		case 'e': bulk.every_us = (uint32_t)atoi(optarg); break;
		case 'b': bulk.base = (uint32_t)atoi(optarg); break;
		case 's': bulk.seed = strtoull(optarg, NULL, 0); break;
		case 'd': bulk.drain_s = atoi(optarg); break;
		case 'S': bulk.sndbuf = atoi(optarg); break;
		case 'c': bulk.congestion = optarg; break;
		case 'p': bulk.from_port = atoi(optarg); break;
		case 'A': bulk.after_seconds = atof(optarg); break;
		case 'R': bulk.rcvbuf = atoi(optarg); break;
		case 'h': fputs(usage, stdout); exit(0);
		default: wrong("unknown option");
		}
	}
	if (!bulk.report_path || !bulk.address.sin_port)
		wrong("an address and --report are needed");
	if (bulk.message && !bulk.every_us)
		wrong("--message needs --every-us");
}
