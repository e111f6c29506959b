/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The tables of one namespace's agent.  All are pinned: the data path outlives the daemon. */
#ifndef DYSCO_EBPF_MAPS_H
#define DYSCO_EBPF_MAPS_H
#include "scratch.h"

enum { MAX_SESSIONS = 16384, MAX_TAGS = 4096, EVENT_BYTES = 1 << 20 };

#define TABLE(name, map_type, entries, key_type, value_type)                                                 \
	struct {                                                                                             \
		__uint(type, map_type);                                                                      \
		__uint(max_entries, entries);                                                                \
		__type(key, key_type);                                                                       \
		__type(value, value_type);                                                                   \
	} name SEC(".maps")
#define HASH_TABLE(name, entries, key_type, value_type)                                                      \
	struct {                                                                                             \
		__uint(type, BPF_MAP_TYPE_HASH);                                                             \
		__uint(max_entries, entries);                                                                \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                        \
		__type(key, key_type);                                                                       \
		__type(value, value_type);                                                                   \
	} name SEC(".maps")

/* five-tuple that the local side sends -> how it leaves (two for each session of a middlebox) */
HASH_TABLE(egress_table, 2 * MAX_SESSIONS, struct five_tuple, struct entry);
/* five-tuple of a subsession as it arrives -> what the local side sees */
HASH_TABLE(ingress_table, 3 * MAX_SESSIONS, struct five_tuple, struct entry);
/* nonce -> session */
HASH_TABLE(session_table, MAX_SESSIONS, u64, struct session);
/* nonce and side -> reconfiguration in progress */
HASH_TABLE(reconfig_table, MAX_SESSIONS, struct reconfig_key, struct reconfig);
/* low bits of the mark on a SYN inside this host -> nonce (paper IV-B) */
TABLE(tag_table, BPF_MAP_TYPE_ARRAY, MAX_TAGS, u32, u64);
/* address, and ours towards it -> index of its next hop, and the next hops themselves; 0 is none */
HASH_TABLE(next_hop_index, MAX_NEXT_HOPS, struct hop_key, u32);
TABLE(next_hop_table, BPF_MAP_TYPE_ARRAY, MAX_NEXT_HOPS, u32, struct next_hop);
TABLE(next_hop_count, BPF_MAP_TYPE_ARRAY, 1, u32, u32);
/* written by the daemon */
TABLE(config_table, BPF_MAP_TYPE_ARRAY, 1, u32, struct config);
TABLE(policy_table, BPF_MAP_TYPE_ARRAY, POLICY_SLOTS, u32, struct policy);
TABLE(key_table, BPF_MAP_TYPE_ARRAY, MAX_DOMAINS * MAX_KEYS, u32, struct hmac_key);
TABLE(type_table, BPF_MAP_TYPE_ARRAY, MAX_TYPES, u32, struct middlebox_type);
/* address of a middlebox that a type has given -> live sessions that begin here and go to it; written by core */
HASH_TABLE(member_table, MAX_TYPES * MAX_MEMBERS, be32, u64);
/* read by the daemon */
TABLE(counter_table, BPF_MAP_TYPE_PERCPU_ARRAY, COUNTERS, u32, u64);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENT_BYTES);
} event_ring SEC(".maps");
/* working memory */
TABLE(scratch_table, BPF_MAP_TYPE_PERCPU_ARRAY, 1, u32, struct scratch);
/* where the fast programs tail-call to: index = verdict of the core */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 32);
	__type(key, u32);
	__type(value, u32);
} program_table SEC(".maps");

#endif
