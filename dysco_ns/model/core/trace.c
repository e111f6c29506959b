/* SPDX-License-Identifier: Apache-2.0 */
/* A step in words, for whoever follows a trail (WORLD_TRACE=1 ./pan -r). */
#include "trace.h"

#include <stdio.h>

#include "segment.h"
#include "message.h"

static const char *const TYPES[] = { "?", "setup", "requestLock", "ackLock", "nackLock", "release", "ackRelease", "cancel", "ackCancel",
				     "trigger", "heartbeat", "alive" };

static u32 get32(const u8 *p) { return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3]; }

void trace_message(const char *verb, const u8 *frame, u32 length)
{
	const u8 *tcp = frame + AT_TCP, *at = tcp + (tcp[12] >> 4) * 4;
	u32 payload = length - (u32)(at - frame), flags = tcp[13];

	printf("  %s %u.%u > %u.%u %s%s%s%s seq %u +%u ack %u", verb, frame[AT_IP + 15] - 1u, (u32)tcp[0] << 8 | tcp[1],
	       frame[AT_IP + 19] - 1u, (u32)tcp[2] << 8 | tcp[3], flags & TCP_SYN ? "SYN " : "", flags & TCP_FIN ? "FIN " : "",
	       flags & TCP_RST ? "RST " : "", flags & TCP_ACK ? "ACK" : "", get32(tcp + 4), payload, get32(tcp + 8));
	if (payload >= sizeof(struct message_header) && at[0] == 0x44 && at[1] == 0x59)
		printf(" %s", at[3] < sizeof(TYPES) / sizeof(*TYPES) ? TYPES[at[3]] : "?");
	if (payload == CONTROL_BYTES)
		printf(" txid %u flags %u reason %u beta %d", get32(at + 16), at[37], at[36], (s32)get32(at + 48));
	else if (tcp[12] == 0x80)
		printf(" ts %u/%u", get32(tcp + 24), get32(tcp + 28));
	puts("");
}
