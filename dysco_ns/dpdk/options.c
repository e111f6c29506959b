/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>

#include "options.h"

enum { OPTION_WIRE = 256, OPTION_HOST, OPTION_SOCKET, OPTION_PREFIX, OPTION_CORE, OPTION_WORKERS, OPTION_SESSIONS, OPTION_MEMORY, OPTION_PACKETS };
enum { SESSIONS = 1 << 16, MOST_SESSIONS = 1 << 24, MEMORY_MB = 64, MEMORY_MB_MORE = 32 /* for each further core */ };

static const char help[] =
	"usage: dysco-dpdk --wire DEVICE --host DEVICE [--wire DEVICE --host DEVICE ...] [options]\n"
	"\n"
	"The Dysco agent as a DPDK application: frames of the host side leave by the wire side of their pair, and the other\n"
	"way round; sessions of service chains are translated on the way.  The agent daemon starts it (dysco agent run\n"
	"--backend dpdk) and drives it by its socket.\n"
	"\n"
	"  DEVICE         a PCI address (0000:03:00.0), or a virtual device: net_af_packet0,iface=eth0\n"
	"                 net_tap0,iface=dysco0  net_af_xdp0,iface=eth0  virtio_user0,path=...  net_pcap0,rx_pcap=...  net_null0\n"
	"  --socket PATH  where the daemon connects\n"
	"  --prefix NAME  of DPDK's own files, one for each process (default: dysco-PID)\n"
	"  --workers N    cores that work, at most 16 (default 1); each session is one core's\n"
	"  --core LIST    runs on these processors, a core on each: 2 or 2,3 (default: whichever the system gives)\n"
	"  --sessions N   room in the tables (default 65536, at most 16777216)\n"
	"  --memory N     megabytes for frames (default 64, and 32 for each further core)\n"
	"  --poll         never sleeps; without it an idle core sleeps up to 0.1 ms at a time\n"
	"  --huge         huge pages or nothing; --no-huge: none even if there are some (default: if there are any)\n"
	"  --packets N    ends after so many frames\n"
	"  --json         prints statistics at the end, as JSON\n";

void fail(int status, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("dysco-dpdk: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(status);
}

static u64 number(const char *name, const char *text, u64 least, u64 most)
{
	char *end;
	u64 value = strtoull(text, &end, 10);

	if (!*text || *end || value < least || value > most)
		fail(2, "--%s %s: a number from %llu to %llu", name, text, least, most);
	return value;
}

static void device(const char **list, const char *text, u32 *count)
{
	if (*count == MAX_PAIRS)
		fail(2, "more than %d pairs of ports", MAX_PAIRS);
	list[(*count)++] = text;
}

/* "2,3": processors, a core on each. */
static void processors(struct options *o, const char *text)
{
	char copy[256], *save, *word;

	o->cores = 0;
	snprintf(copy, sizeof(copy), "%s", text);
	for (word = strtok_r(copy, ",", &save); word; word = strtok_r(0, ",", &save)) {
		if (o->cores == MAX_CORES)
			fail(2, "--core %s: at most %d", text, MAX_CORES);
		o->processor[o->cores] = (int)number("core", word, 0, RTE_MAX_LCORE - 1);
		for (u32 i = 0; i < o->cores; i++)
			if (o->processor[i] == o->processor[o->cores])
				fail(2, "--core %s: %s is there twice", text, word);
		o->cores++;
	}
	if (!o->cores)
		fail(2, "--core %s: which?", text);
}

static const struct option known[] = {
	{ "wire", 1, 0, OPTION_WIRE },         { "host", 1, 0, OPTION_HOST },       { "socket", 1, 0, OPTION_SOCKET },
	{ "prefix", 1, 0, OPTION_PREFIX },     { "core", 1, 0, OPTION_CORE },       { "sessions", 1, 0, OPTION_SESSIONS },
	{ "memory", 1, 0, OPTION_MEMORY },     { "packets", 1, 0, OPTION_PACKETS }, { "poll", 0, 0, 'p' },
	{ "json", 0, 0, 'j' },                 { "huge", 0, 0, 'g' },               { "no-huge", 0, 0, 'n' },
	{ "workers", 1, 0, OPTION_WORKERS },   { "help", 0, 0, 'h' },       {},
};

void options_read(struct options *o, int argc, char **argv)
{
	static char prefix[32];
	u32 hosts = 0, workers = 0;

	snprintf(prefix, sizeof(prefix), "dysco-%d", (int)getpid());
	*o = (struct options){ .sessions = SESSIONS, .prefix = prefix };
	opterr = 0;
	for (int c; (c = getopt_long(argc, argv, "h", known, 0)) != -1;) {
		switch (c) {
		case OPTION_WIRE: device(o->wire, optarg, &o->pairs); break;
		case OPTION_HOST: device(o->host, optarg, &hosts); break;
		case OPTION_SOCKET: o->socket = optarg; break;
		case OPTION_PREFIX: o->prefix = optarg; break;
		case OPTION_CORE: processors(o, optarg); break;
		case OPTION_WORKERS: workers = (u32)number("workers", optarg, 1, MAX_CORES); break;
		case OPTION_SESSIONS: o->sessions = (u32)number("sessions", optarg, 1, MOST_SESSIONS); break;
		case OPTION_MEMORY: o->memory_mb = (u32)number("memory", optarg, 16, 1 << 16); break;
		case OPTION_PACKETS: o->packets = number("packets", optarg, 1, ~0ull); break;
		case 'p': o->poll = 1; break;
		case 'j': o->json = 1; break;
		case 'g': o->huge = 1; break;
		case 'n': o->no_huge = 1; break;
		case 'h': fputs(help, stdout); exit(0);
		default: fail(2, "%s: unknown, or without its value; --help lists all options", argv[optind - 1]);
		}
	}
	if (optind < argc)
		fail(2, "%s: what is this? --help lists all options", argv[optind]);
	if (!o->pairs || hosts != o->pairs)
		fail(2, "%u --wire and %u --host: each port on the wire needs one towards the host", o->pairs, hosts);
	if (o->huge && o->no_huge)
		fail(2, "--huge and --no-huge: not both");
	if (o->cores && workers && o->cores != workers)
		fail(2, "--workers %u, but --core names %u processors", workers, o->cores);
	for (u32 i = o->cores; i < MAX_CORES; i++)
		o->processor[i] = -1;
	o->cores = o->cores ? o->cores : workers ? workers : 1;
	o->memory_mb = o->memory_mb ? o->memory_mb : MEMORY_MB + MEMORY_MB_MORE * (o->cores - 1);
}
