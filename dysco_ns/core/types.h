/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Integer types, limits and the tables of one agent.
 *
 * Every structure that the daemon reads is defined here and nowhere else; Python takes the layouts from the
 * object's BTF.  Multi-byte fields are in host order unless their type says be16/be32.  Each group of fields says
 * who writes it: "core" means a program in the data path or a command program; the daemon writes only config,
 * policies, keys, addresses and next hops.
 */
#ifndef DYSCO_TYPES_H
#define DYSCO_TYPES_H

#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef __u16 be16; /* network byte order */
typedef __u32 be32;

#define INLINE static inline __attribute__((always_inline))
#ifdef __bpf__
#define NOINLINE __attribute__((noinline)) /* a global function: verified once, on its own */
#else
#define NOINLINE static __attribute__((noinline, unused))
#endif

/* For the eBPF verifier.  KEEP: the compiler must not fold away the bound that is checked next.  VARY: forget what is
 * known of x, so that all turns of a loop look alike.  Elsewhere they do nothing. */
#ifdef __bpf__
#define KEEP(x) asm volatile("" : "+r"(x))
#define VARY(x, unknown) asm volatile("%0 += %1; %0 -= %1" : "+r"(x) : "r"((u64)(unknown)))
#else
#define KEEP(x) ((void)(x))
#define VARY(x, unknown) ((void)(unknown))
#endif

#define ALIGNED __attribute__((aligned(8))) /* so that copies go by words */

#define be16_of(x) ((be16)__builtin_bswap16((u16)(x))) /* both ways: the swap is its own inverse */
#define be32_of(x) ((be32)__builtin_bswap32((u32)(x)))

enum {
	LAYOUT_VERSION = 1,     /* of pinned maps */
	MAX_MIDDLEBOXES = 8,
	MAX_POLICIES = 64,
	POLICY_SLOTS = 2 * MAX_POLICIES, /* those in force, and a batch that takes their place */
	MAX_FILTER = 64,        /* classic BPF instructions of one policy */
	MAX_INTERFACES = 8,
	MAX_DOMAINS = 4,
	MAX_KEYS = 4,           /* of each domain */
	MAX_TYPES = 16,         /* of middleboxes */
	MAX_MEMBERS = 16,       /* of one type */
	TRANSACTIONS = 8,       /* that an agent remembers of a session, to know what is played again */
	HEARTBEATS_LOST = 3,    /* without an answer: the neighbour is gone, and the session with it */
	MAX_BURIED = 4,         /* old paths of a live session that still swallow late segments */
	MAX_NEXT_HOPS = 1024,
	DAEMON_NEXT_HOPS = 512, /* from here on the daemon adds next hops, below it the core */
	SHARED_NEXT_HOPS = DAEMON_NEXT_HOPS - MAX_INTERFACES, /* from here on those that many neighbours share */
	MAX_HEADER = 60,        /* bytes of a TCP header with options */
	MAX_MESSAGE = 183,      /* bytes that a signature covers: three SHA-256 blocks with their padding */
	SIGNATURE_BYTES = 32,
	LOCK_LEASE_NS = 2000000000,
};
#define NEW_PATH_BEAT_NS 60000000000ull /* silence after which a middlebox that came later asks whether a session lives */
#define ANCHOR_SILENT_NS 30000000000ull /* no answer to any release for so long: the old path has failed */

struct five_tuple {
	be32 src, dst;
	be16 sport, dport;
};
_Static_assert(sizeof(struct five_tuple) == 12, "five_tuple is a map key: no padding");

/* What one pass does to a segment.  Deltas are added, modulo 2^32. */
struct translation {
	struct five_tuple to;
	u32 seq_delta, ack_delta;
	u32 tsval_delta, tsecr_delta;
	s32 window_shift;       /* > 0: shift the window field left, < 0: right */
};
_Static_assert(sizeof(struct translation) == 32, "translation");

/* The last that passed through an entry, in the local session's sequence space.  Written by core. */
struct seen {
	u32 seq_high;           /* highest sequence number plus one; counts SYN and FIN */
	u32 ack;                /* highest acknowledgment number */
	u32 tsval;              /* highest timestamp: segments that two CPUs pass at once come in any order */
	u16 window;             /* the header's field, unscaled */
	u16 far;                /* upper half of an acknowledgment number that was too far ahead to be believed at once */
	u32 has;                /* enum seen_has: numbers start anywhere, so zero does not mean none */
};
enum seen_has { SEEN_SEQ = 1, SEEN_ACK = 2, SEEN_TSVAL = 4, SEEN_UNSCALED = 8 }; /* the window is a SYN-ACK's */

enum side { SIDE_LEFT, SIDE_RIGHT };    /* which subsession of the session an entry or a record belongs to */
enum direction { RIGHTWARD, LEFTWARD };

enum entry_flag {
	ENTRY_OPTIONS = 1,      /* deltas are non-zero: options beyond the timestamp need a walk */
	ENTRY_PENDING = 2,      /* egress of a middlebox: the subsession is made when the SYN comes out */
	ENTRY_TOMBSTONE = 4,    /* the path is over: swallow in silence */
	ENTRY_ENDED = 8,        /* behind a tombstone: the local socket has acknowledged its end of file */
	ENTRY_PLAIN = 16,       /* the session goes without a chain: no agent has answered, the policy says bypass */
};

/* An entry of the egress table (key: what the local side sends) or the ingress table (key: what arrives). */
struct entry {
	struct translation to;  /* core, never while phase is 0 for others to read it half-written */
	struct seen seen;
	u32 next_hop;           /* index; egress only */
	u8 slow;                /* non-zero: a reconfiguration record rules, take the slow path */
	u8 side;                /* enum side */
	u8 flags;               /* enum entry_flag */
	u8 spare[5];
	u64 nonce;              /* of its session */
	u64 packets, bytes;
};
_Static_assert(__builtin_offsetof(struct entry, nonce) == 64, "what the fast path decides by lies in one cache line");

enum lock_state { UNLOCKED, LOCK_PENDING, LOCKED }; /* paper III-B */

enum session_flag {
	SESSION_FIRST = 1,      /* its first agent: no subsession to the left */
	SESSION_LAST = 2,       /* its last agent: no subsession to the right */
	SESSION_SPLICED = 4,    /* joined to session `peer` by dysco_splice */
	SESSION_LEFT_CHAIN = 8, /* this middlebox has been removed from the chain */
	SESSION_FIN_RIGHTWARD = 16,
	SESSION_FIN_LEFTWARD = 32,
	SESSION_FINS = SESSION_FIN_RIGHTWARD | SESSION_FIN_LEFTWARD,
	SESSION_RST = 64,
	SESSION_BYPASS = 128,   /* without a chain rather than not at all */
	SESSION_NAT = 512,      /* the left neighbour is behind a NAT without an agent */
	SESSION_FORWARDED = 1024, /* a NAT on the left has changed the destination: port forwarding */
	SESSION_ENDS = 256,     /* the last agent of the chain ends it for a host without one: an edge */
};

/* What a SYN or SYN-ACK offered, by the direction in which it travelled. */
struct offer {
	u32 isn;
	u32 tsval;
	u16 mss;                /* 0: none */
	u8 window_scale;
	u8 has;                 /* enum offer_has */
};
enum offer_has { OFFER_SEEN = 1, OFFER_WINDOW_SCALE = 2, OFFER_TIMESTAMP = 4, OFFER_SACK = 8, OFFER_ECN = 16,
		  OFFER_AUTHENTICATED = 32, OFFER_MULTIPATH = 64 };

/* A requestLock that has met a pending lock: refused when that one is answered, either way (paper III-B). */
struct held {
	u64 nonce;                      /* of the session in which it came */
	u32 txid;                       /* 0: none */
	be32 left_anchor, right_anchor;
	struct five_tuple from;
};

/* What a new path's SYN carries for the right anchor. */
struct new_path {
	u64 handle;                     /* the session's nonce there */
	u32 txid;                       /* 0: the SYN is that of an ordinary session */
	u16 window_scale;               /* of the left anchor's end host */
	u16 fins;                       /* session flags: who has closed already, on the old path */
};

/* A session at this agent; key: its nonce.  Core writes all of it. */
struct session {
	struct five_tuple left_tuple;   /* the session as the left side of this host knows it, rightward */
	struct five_tuple right_tuple;  /* as the right side knows it: differs behind a NAT */
	struct five_tuple left_sub;     /* the subsessions on the wire, rightward; zero if there is none */
	struct five_tuple right_sub;
	struct offer offer[2];          /* by enum direction */
	u64 peer;                       /* nonce of the session it is spliced to */
	u64 known_as[2];                /* by side: the neighbour's nonce for the session; 0: ours (a proxy between had two) */
	u32 splice_delta[2];            /* by direction: added to sequence numbers by the proxy */
	u32 flags;                      /* enum session_flag */
	u32 chain_length;
	be32 chain[MAX_MIDDLEBOXES];    /* middleboxes to the right of this agent; a new path's: its right anchor, too */
	be32 picked[MAX_MIDDLEBOXES];   /* those that were chosen among a type's, counted as long as the session lives */
	u32 picks;
	be32 home;                      /* an end host that moves: where new paths begin or end; 0: as it is */
	be32 outside;                   /* SESSION_FORWARDED: the address that the left side knows this host by */
	struct new_path new_path;       /* of a middlebox that a reconfiguration has brought in */
	/* the lock of the subsession to the right, paper III-B */
	u32 lock;                       /* enum lock_state */
	u32 txid;
	be32 requestor;
	u32 left_txid;                  /* by which this middlebox has left, before it came back */
	u32 known[TRANSACTIONS];        /* transactions seen here, freshness.h */
	u32 known_next;
	u32 old_epochs;                 /* transactions of earlier epochs are none of the session's present */
	u32 newest;                     /* of the highest epoch that this agent has heard of */
	u32 done_txid[2];               /* by side: the last reconfiguration that this agent completed */
	u64 lock_until_ns;
	struct five_tuple request_from; /* as the request arrived: the answer goes back there, */
	u64 request_nonce;              /* under the name that the session has there */
	struct held held;
	u32 leg_delta[2];               /* by side: delta of the last reconfiguration here, without betas; for `dysco sessions` */
	struct five_tuple buried[MAX_BURIED];   /* ingress keys of the last old paths: tombstones */
	u32 burials;
	u32 syns;                       /* repeated without an answer */
	u32 beat;                       /* transaction of the last heartbeat that was sent */
	u32 unanswered[2];              /* by side: heartbeats since the last answer */
	u64 beat_ns;
	u64 created_ns;
	u64 over_ns;                    /* when it ended; 0: it lives */
	u64 idle_since_ns, idle_packets;
};

enum phase {                    /* of a reconfiguration at an anchor */
	PHASE_LOCKING = 1,      /* requestLock is out */
	PHASE_HANDSHAKE,        /* the new path's three segments are under way */
	PHASE_READY,            /* new data goes on the new path */
	PHASE_SETTLING,         /* the old path is gone; betas or timestamps still unconfirmed */
	PHASE_DONE,             /* the entries hold the new translation; the record may be dropped */
};

enum reconfig_flag {
	RECONFIG_LEFT_ANCHOR = 1,
	RECONFIG_CUTOFF = 2,        /* old_sent is fixed */
	RECONFIG_FIRST_NEW = 4,     /* first_new_rcvd holds */
	RECONFIG_BETA_IN = 8,       /* beta_in is known */
	RECONFIG_BETA_OUT = 16,     /* the other anchor knows beta_out */
	RECONFIG_TS_OFFSET = 32,    /* ts_offset is known */
	RECONFIG_PEER_CUTOFF = 64,  /* peer_cutoff is known from a message */
	RECONFIG_DRAINED = 128,     /* this anchor no longer needs the old path */
	RECONFIG_TIMESTAMPS = 256,
	RECONFIG_CLOCKS = 512,      /* a proxy with clocks of its own leaves: the offset is measured */
	RECONFIG_PEER_DRAINED = 1024,
	RECONFIG_FIRST_BYTE = 4096,
	RECONFIG_EDGE = 32768,      /* the other end host offers at least the window that was delivered */
	RECONFIG_RIGHT_OF = 16384,  /* left anchor: right_anchor still names the last middlebox to leave */
	RECONFIG_ECHOED = 65536,    /* what arrives echoes timestamps with beta (without timestamps: acknowledges more than the start of the
				     * new path): nothing from before the other anchor knew it is under way any more */
	RECONFIG_PARK = 262144,     /* new data waits until the state of a middlebox has moved: state migration */
	RECONFIG_GO = 524288,       /* it has */
	RECONFIG_CANCEL = 1048576,  /* left anchor: given up, whatever comes still; the right one may have forgotten already */
	RECONFIG_TS_LEVEL = 131072, /* the new path's timestamps have caught up with the old one's: none need raising any more */
	RECONFIG_SYN_ACK = 8192,    /* left anchor: the new path's SYN-ACK has come */
	RECONFIG_BROUGHT_IN = 2097152, /* the session has come here by a new path, whose anchors may still write WINDOW_OPEN */
	RECONFIG_ECHO_LEVEL = 4194304, /* and so have its echoes */
	RECONFIG_OWN_LEVEL = 8388608, /* and the local side's last echo with what the new path has been told */
};

struct reconfig_key {
	u64 nonce;
	u32 side;               /* the subsession that changes: right at the left anchor, left at the right anchor */
	u32 spare;
};

#ifdef __bpf__
struct bpf_spin_lock;
#define RECORD_LOCK struct bpf_spin_lock lock
#else
#define RECORD_LOCK u32 lock
#endif

/* A reconfiguration at one of its anchors.  Core writes all of it, under the lock once phase is READY.
 * Sequence numbers are the local session's ("in the middle of the anchor", paper III-F) unless they say wire. */
struct reconfig {
	RECORD_LOCK;
	u32 txid;
	u32 phase;              /* enum phase */
	u32 flags;              /* enum reconfig_flag */
	be32 left_anchor, right_anchor;
	u64 handle;             /* the session's nonce at the right anchor */
	u64 named;              /* right anchor: at the left one, and on the new path */
	struct five_tuple out_key;      /* egress key of the session */
	struct five_tuple old_in, new_in;       /* ingress keys of the two paths */
	struct translation new_out;     /* egress on the new path: addresses and window; deltas are computed */
	u32 new_next_hop;
	s32 in_window_shift;    /* to read the other end's windows as the stack here does */
	u32 own_scale, known_scale;     /* of the stack's own windows, and as which it reads what arrives */
	u32 peer_delta;         /* delta learnt in the lock handshake: added to sequence numbers that arrive */
	u32 isn_out, isn_in;    /* wire, of the new path */
	u32 old_sent;           /* the cutoff: first byte that goes on the new path */
	u32 old_sent_acked;
	u32 old_rcvd, old_rcvd_acked;
	u32 first_new_rcvd;
	u32 peer_cutoff;
	u32 beta_out, beta_in;
	u32 ts_out0;            /* TSval of our SYN or SYN-ACK on the new path */
	u32 ts_in0;             /* the other anchor's */
	u32 ts_in_seen;         /* last TSval that came on the new path, as on the wire */
	u32 ts_held;            /* what the stack wrote where the wire held ts_out0 + beta_out */
	u32 ts_offset;          /* delivered TSval = wire - beta_in + ts_offset */
	u32 ts_delivered;       /* last TSval delivered, from either path */
	u32 ts_old_seen;        /* last TSval that came on the old path, untranslated */
	u32 old_window;         /* last window field delivered from the old path */
	u32 edge_offered;       /* the furthest right edge of a window that the local side has offered */
	u32 ack_delivered;      /* the furthest acknowledgment delivered from either path */
	u32 expected;           /* highest acknowledgment that the local side has sent: what it expects next */
	u32 edge_delivered;     /* the furthest right edge of a window delivered: it never moves back */
	u32 chain_length;
	be32 chain[MAX_MIDDLEBOXES];    /* middleboxes of the new path */
	u64 lock_ns, ready_ns, first_byte_ns, drained_ns;
	u64 heard_ns;           /* left anchor: the last answer to a release */
	u32 parked;             /* what was told to wait, RECONFIG_PARK: bytes and FIN, however they are cut into segments */
	u32 ts_echoed;          /* highest TSecr delivered, from either path */
};

/* ---- what the daemon asks of the core: command.h ---- */

enum command_kind {
	COMMAND_NONE,
	COMMAND_RECONFIGURE,    /* as left anchor: lock the segment up to `right_anchor` (0: the neighbour; or right
	                         * of it) and replace what is in it by `chain` */
	COMMAND_REPEAT,         /* send again what has not been answered */
	COMMAND_RELEASE,        /* with CONTROL_GO: what is parked may go */
	COMMAND_CANCEL,
	COMMAND_UNPARK,         /* segments leave at once again, if none but those `parked` have been told to wait */
	COMMAND_NEXT,           /* a local program opens a session, `tuple`: its SYN takes `chain` */
	COMMAND_SPLICE,         /* join `nonce` (its last agent here) and `peer` (its first agent here) */
	COMMAND_TRIGGER,        /* ask the left neighbour to remove this middlebox, or (without CONTROL_RIGHT_OF) for a new path
	                         * to this host */
	COMMAND_CLOSE,          /* this middlebox has left: give the local socket a FIN */
	COMMAND_FORGET_RECORD,  /* settle a record by time, or drop one that is done or cancelled */
	COMMAND_EXPIRE,         /* forget what has been over for `linger_ns` or silent for `idle_ns`; tell of `beat_ns` */
	COMMAND_MOVE,           /* new paths of this session begin or end at `tuple.src` from now on */
	COMMAND_HEARTBEAT,      /* ask the neighbours of a silent session whether they have it still */
	COMMANDS
};

struct command {
	u32 kind;               /* enum command_kind */
	u32 txid;
	u64 nonce, peer;
	be32 right_anchor;
	u32 flags;              /* enum control_flag */
	u32 delta[2];           /* by direction */
	u32 chain_length;
	be32 chain[MAX_MIDDLEBOXES];
	u32 side;
	u32 ifindex;            /* CLOSE: where the segment arrives */
	u32 parked;             /* UNPARK: bytes and FIN that have waited and are gone */
	struct five_tuple tuple;
	u32 spare2;
	u64 linger_ns, idle_ns; /* EXPIRE; idle_ns 0: do not look for silent sessions */
	u64 beat_ns;            /* EXPIRE: silence after which the neighbours are asked; 0: never */
};

/* ---- written by the daemon ---- */

struct interface {
	u32 ifindex;
	be32 address;
};

enum config_flag {
	CONFIG_EVENTS = 1,      /* somebody listens: tell what happens, not only what needs the daemon */
	CONFIG_TAG_OPTION = 2,  /* this middlebox takes packets to user space: tag SYNs by a TCP option, too */
};

/* Agents that share keys: those with an address in this network; the first domain is that of all others. */
struct domain {
	be32 network, mask;
	u32 sign;               /* zero: messages to and from it are not signed */
	u32 key;                /* number of the key to sign with; its slot: domain * MAX_KEYS + key */
};

struct config {
	u32 layout_version;
	u32 flags;
	u32 parking;            /* interface whose queue the daemon reads, where segments wait; DPDK: room for so many; 0: none */
	u32 throttle;           /* most bytes of window that senders here are shown in a reconfiguration, plus one; 0: no limit */
	u32 first_port, ports;  /* range of subsession source ports; control ports lie above, as many */
	u32 policy_slots;       /* in force: how many, and << 16 the first; one number, so that a batch takes force at once */
	u32 interface_count;
	u32 domains;
	struct domain domain[MAX_DOMAINS];
	struct interface interfaces[MAX_INTERFACES];
};

struct filter_insn {            /* as struct sock_filter */
	u16 code;
	u8 jt, jf;
	u32 k;
};

struct policy {
	u32 id;                 /* 0: free slot */
	u32 insns;
	u32 chain_length;
	u32 on_no_agent;        /* 0 fail, 1 bypass */
	u32 ends;               /* non-zero: the last of the chain is an edge, which ends it */
	u32 spare;
	be32 chain[MAX_MIDDLEBOXES];
	u8 type[MAX_MIDDLEBOXES];       /* non-zero: one of that type, counted from 1, in place of the address */
	struct filter_insn filter[MAX_FILTER];
};

enum choose { CHOOSE_ROUND_ROBIN, CHOOSE_FEWEST };

/* Middleboxes that do the same; a session gets one of them.  How many sessions each has is counted by its address. */
struct middlebox_type {
	u32 members;            /* 0: free slot */
	u32 choose;             /* enum choose */
	u32 turn;               /* written by core */
	be32 member[MAX_MEMBERS];
};

struct hmac_key {               /* SHA-256 states after the inner and the outer pad block */
	u32 inner[8], outer[8];
	u32 valid, spare;
};

/* Where a next hop is found: `from` is the address that we use towards it, 0: whichever the routes say. */
struct hop_key {
	be32 address, from;
};

struct next_hop {               /* core adds, daemon refreshes */
	be32 address;
	u32 ifindex;
	u8 destination[6], source[6];
	u32 resolved;           /* 0: let the kernel find the neighbour */
	be32 from;              /* our address on that interface */
	u32 bound;              /* the session wants this address of ours: a host with several */
};

#endif
