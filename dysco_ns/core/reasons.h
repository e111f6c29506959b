/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Why a packet was counted, why a reconfiguration was refused, and what happened: names that the daemon, the CLI
 * and the documentation take from here (through BTF).
 */
#ifndef DYSCO_REASONS_H
#define DYSCO_REASONS_H

enum verdict {
	VERDICT_PASS,           /* not ours, or ours and ready: go on as it is */
	VERDICT_DROP,
	VERDICT_SENT,           /* the port has disposed of it: verdict code in the port's hand */
};

/* Labels of the counters map; each says what it means by its name. */
enum counter {
	COUNT_NONE,
	COUNT_SESSION_STARTED,
	COUNT_SESSION_JOINED,
	COUNT_SESSION_FORGOTTEN,
	COUNT_SYN_REPEATED,
	COUNT_DROP_BAD_MESSAGE,
	COUNT_DROP_BAD_SIGNATURE,
	COUNT_DROP_UNSIGNED,
	COUNT_DROP_COLLISION,
	COUNT_DROP_NO_PORT,
	COUNT_DROP_NO_ROUTE,
	COUNT_DROP_TABLE_FULL,
	COUNT_CHAIN_TOO_LONG,
	COUNT_NO_MEMBER,
	COUNT_DROP_RESIZE,
	COUNT_DROP_UNKNOWN_SESSION,
	COUNT_DROP_STALE_TXID,
	COUNT_DROP_MISADDRESSED,        /* a message that was signed for another agent, or came by a way that is not its own */
	COUNT_DROP_TOMBSTONE,
	COUNT_PASS_FRAGMENT,
	COUNT_PASS_IP_OPTIONS,
	COUNT_PASS_SYN_DATA,
	COUNT_PASS_AUTHENTICATED,       /* a SYN with TCP-MD5 or TCP-AO: no five-tuple of it may change */
	COUNT_PASS_FOREIGN_PAYLOAD,
	COUNT_CONTROL_RECEIVED,
	COUNT_CONTROL_SENT,
	COUNT_EMITTED,
	COUNT_EMIT_FAILED,
	COUNT_SPLIT,
	COUNT_SPLIT_FAILED,
	COUNT_ANSWERED_ON_SPOT,
	COUNT_ICMP_TRANSLATED,
	COUNT_PARKED,
	COUNT_NO_ROOM_FOR_TAG,
	COUNT_TAG_RETURNED,
	COUNT_EVENT_LOST,
	COUNT_NEXT_HOP_KERNEL,
	COUNTERS
};

/* Why an agent refuses; carried by nackLock. */
enum refusal {
	REFUSED_NOT,
	REFUSED_NO_SESSION,
	REFUSED_SESSION_OVER,
	REFUSED_NOT_SPLICED,    /* the middlebox terminates TCP and has not joined its two sessions */
	REFUSED_LOCKED,
	REFUSED_NO_RIGHT_ANCHOR,
	REFUSED_OPTIONS,        /* the two sessions of the proxy negotiated different timestamps */
	REFUSED_BUSY,           /* an earlier reconfiguration is settling */
	REFUSED_NO_ROUTE,
	REFUSED_BAD_STATE,
	REFUSED_NO_ROOM,
	REFUSED_IN_USE,
	REFUSED_PARKING,        /* this anchor has no place where segments could wait */
	REFUSED_NAT,            /* the left neighbour is behind a NAT that lets nothing in */
	REFUSED_STALE,          /* the transaction is none that is new here; the answer says what the newest is */
	REFUSED_FORWARDED,      /* a NAT that forwards ports lies before this host: a new path past it has no way in */
	REFUSALS
};

enum event_kind {
	EVENT_NONE,
	EVENT_SESSION_STARTED,
	EVENT_SESSION_ESTABLISHED,
	EVENT_SESSION_FIN,
	EVENT_SESSION_RST,
	EVENT_LOCK_REQUESTED,
	EVENT_LOCK_PENDING,
	EVENT_LOCKED,
	EVENT_LOCK_REFUSED,
	EVENT_UNLOCKED,
	EVENT_NEW_PATH_SYN,
	EVENT_NEW_PATH_READY,
	EVENT_DRAINED,
	EVENT_OLD_PATH_GONE,
	EVENT_LEFT_CHAIN,
	EVENT_SETTLED,
	EVENT_TRIGGER,
	EVENT_CANCELLED,
	EVENT_NO_AGENT,         /* value: the next hop that has not answered */
	EVENT_MIGRATE,          /* left anchor: both have drained and wait, the state can move */
	EVENT_UNPARK,           /* what is parked may go */
	EVENT_MOVED,            /* the right neighbour asks for a new path to itself (value: its address on the old one) */
	EVENT_SESSION_SILENT,   /* for so long that its neighbours are to be asked */
	EVENT_SESSION_LOST,     /* a neighbour no longer has it, or does not answer (value: its address) */
	EVENTS
};

/* What the daemon does about an event: nothing (it is told while somebody listens), something, something at once. */
enum urgency { FOR_LISTENERS, FOR_DAEMON, AT_ONCE };
static inline __attribute__((always_inline)) int event_urgency(__u32 kind)
{
	switch (kind) {
	case EVENT_SESSION_SILENT:
	case EVENT_SETTLED: return FOR_DAEMON;
	case EVENT_LOCK_REFUSED:
	case EVENT_NEW_PATH_READY:
	case EVENT_DRAINED:
	case EVENT_OLD_PATH_GONE:
	case EVENT_LEFT_CHAIN:
	case EVENT_TRIGGER:
	case EVENT_MOVED:
	case EVENT_MIGRATE:
	case EVENT_UNPARK:
	case EVENT_CANCELLED: return AT_ONCE;
	}
	return FOR_LISTENERS;
}

struct event {
	__u64 time_ns;          /* monotonic */
	__u64 nonce;
	__u32 kind;             /* enum event_kind */
	__u32 txid;
	__u32 value;            /* enum refusal, address, ... by kind */
	__u32 side;
};

#endif
