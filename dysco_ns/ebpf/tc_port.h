/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The core's port layer (core/port.h) on eBPF at tc. */
#ifndef DYSCO_EBPF_TC_PORT_H
#define DYSCO_EBPF_TC_PORT_H
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define packet __sk_buff
#include "checksum.h"
#include "reasons.h"
#include "maps.h"
#include "sequence.h"

/* Marks by which the egress program knows what the core itself has sent.  The second is only honoured while an
 * emission is armed on this CPU. */
enum { MARK_SENT = 0x44790001, MARK_EMIT = 0x44790002, MARK_PARKED = 0x44790003, MARK_TAG = 0x5e000000, MARK_TAG_MASK = 0xff000000 };
enum { FAMILY_INET = 2 };

/* ---- packet ---- */

INLINE void *port_data(struct packet *p) { return (void *)(long)p->data; }
INLINE void *port_data_end(struct packet *p) { return (void *)(long)p->data_end; }
INLINE u32 port_length(struct packet *p) { return p->len; }
INLINE int port_pull(struct packet *p, u32 n) { return p->len < n ? -1 : (int)bpf_skb_pull_data(p, n); }
INLINE int port_load(struct packet *p, u32 at, void *to, u32 n) { return (int)bpf_skb_load_bytes(p, at, to, n); }
INLINE int port_store(struct packet *p, u32 at, const void *from, u32 n)
{
	return (int)bpf_skb_store_bytes(p, at, from, n, 0);
}
INLINE int port_resize(struct packet *p, u32 n) { return (int)bpf_skb_change_tail(p, n, 0); }
INLINE u32 port_gso_size(struct packet *p) { return p->gso_size; }

/* A partial checksum covers only the pseudo header: the second call leaves it alone, the first does not. */
INLINE void port_checksum(struct packet *p, u64 pseudo, u64 tcp)
{
	if (pseudo)
		bpf_l4_csum_replace(p, AT_TCP_CHECKSUM, 0, fold32(pseudo), BPF_F_PSEUDO_HDR);
	if (tcp)
		bpf_l4_csum_replace(p, AT_TCP_CHECKSUM, 0, fold32(tcp), 0);
}

/* What the kernel knows of a packet's checksum.  Only kernels from 6.2 on let a tc program look. */
struct sk_buff {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));
extern void *bpf_cast_to_kern_ctx(void *p) __ksym __weak;
enum { SUMMED_NONE, SUMMED_UNNECESSARY, SUMMED_COMPLETE, SUMMED_PARTIAL };

INLINE u32 checksum_kind(struct packet *p)
{
	if (!bpf_cast_to_kern_ctx)
		return SUMMED_COMPLETE; /* unknown: the helpers find out */
	struct sk_buff *skb = bpf_cast_to_kern_ctx(p);
	return BPF_CORE_READ_BITFIELD(skb, ip_summed);
}

/* The same for a checksum field at hand: without the helpers, which cost 60 of the 100 ns of a pass (measured). */
INLINE void port_checksum_at(struct packet *p, u16 *field, const struct checksum_change *change)
{
	u32 kind = checksum_kind(p);

	if (kind == SUMMED_PARTIAL)
		*field = fold16((u64)*field + change->pseudo);
	else if (kind != SUMMED_COMPLETE)
		*field = checksum_apply(*field, (u64)fold32(change->pseudo) + fold32(change->tcp));
	else
		port_checksum(p, change->pseudo, change->tcp);
}

INLINE u32 port_sum(const void *from, u32 n, u32 seed)
{
	KEEP(n);
	if (n > 512)
		return 0;
	return (u32)bpf_csum_diff(0, 0, (__be32 *)from, n, seed);
}

/* What replacing one 64-byte header copy by the other does to the TCP checksum. */
INLINE u64 port_sum_change(const u8 *old, const u8 *new)
{
	return (u32)bpf_csum_diff((__be32 *)old, 64, (__be32 *)new, 64, 0);
}

/* ---- tables ---- */

INLINE struct entry *port_egress(const struct five_tuple *key) { return bpf_map_lookup_elem(&egress_table, key); }
INLINE struct entry *port_ingress(const struct five_tuple *key) { return bpf_map_lookup_elem(&ingress_table, key); }
INLINE struct session *port_session(const u64 *nonce) { return bpf_map_lookup_elem(&session_table, nonce); }
INLINE struct reconfig *port_reconfig(const struct reconfig_key *key)
{
	return bpf_map_lookup_elem(&reconfig_table, key);
}
INLINE int port_put_egress(const struct five_tuple *key, const struct entry *e)
{
	return (int)bpf_map_update_elem(&egress_table, key, e, BPF_ANY);
}
INLINE int port_put_ingress(const struct five_tuple *key, const struct entry *e)
{
	return (int)bpf_map_update_elem(&ingress_table, key, e, BPF_ANY);
}
INLINE int port_put_session(const u64 *nonce, const struct session *s)
{
	return (int)bpf_map_update_elem(&session_table, nonce, s, BPF_ANY);
}
INLINE int port_put_reconfig(const struct reconfig_key *key, const struct reconfig *r)
{
	return (int)bpf_map_update_elem(&reconfig_table, key, r, BPF_ANY);
}
INLINE void port_drop_egress(const struct five_tuple *key) { bpf_map_delete_elem(&egress_table, key); }
INLINE void port_drop_ingress(const struct five_tuple *key) { bpf_map_delete_elem(&ingress_table, key); }
INLINE int port_drop_session(const u64 *nonce) { return (int)bpf_map_delete_elem(&session_table, nonce); }
INLINE void port_drop_reconfig(const struct reconfig_key *key) { bpf_map_delete_elem(&reconfig_table, key); }

/* Whether *at was `from`; then it is `to`. */
INLINE int port_swap(u64 *at, u64 from, u64 to) { return __sync_val_compare_and_swap(at, from, to) == from; }

INLINE void port_each_session(long (*step)(void *, u64 *, struct session *, void *))
{
	bpf_for_each_map_elem(&session_table, step, 0, 0);
}

INLINE struct config *port_config(void)
{
	u32 zero = 0;
	return bpf_map_lookup_elem(&config_table, &zero);
}
INLINE struct scratch *port_scratch(void)
{
	u32 zero = 0;
	return bpf_map_lookup_elem(&scratch_table, &zero);
}
INLINE struct policy *port_policy(u32 i) { return bpf_map_lookup_elem(&policy_table, &i); }
INLINE struct middlebox_type *port_type(u32 i) { return bpf_map_lookup_elem(&type_table, &i); }
INLINE u64 *port_member(const be32 *address) { return bpf_map_lookup_elem(&member_table, address); }
INLINE void port_put_member(const be32 *address, const u64 *sessions)
{
	bpf_map_update_elem(&member_table, address, sessions, BPF_NOEXIST);
}
INLINE void port_add(u64 *at, u64 n) { __sync_fetch_and_add(at, n); }
INLINE struct hmac_key *port_key(u32 i) { return bpf_map_lookup_elem(&key_table, &i); }
INLINE struct next_hop *port_next_hop_at(u32 i) { return bpf_map_lookup_elem(&next_hop_table, &i); }

INLINE u32 tag_of(u64 nonce) { return MARK_TAG | ((u32)(nonce >> 8) & ~(u32)MARK_TAG_MASK); }

/* A tag is short-lived: a later SYN may take its slot, and a hash table would cost 0.25 us here. */
INLINE u64 port_tagged(u32 tag)
{
	u32 slot = tag & (MAX_TAGS - 1);
	u64 *nonce = (tag & MARK_TAG_MASK) == MARK_TAG ? bpf_map_lookup_elem(&tag_table, &slot) : 0;

	return nonce && tag_of(*nonce) == tag ? *nonce : 0;
}
/* The session of a SYN that a middlebox has passed on under another five-tuple. */
INLINE u64 port_tag(struct packet *p)
{
	u64 nonce = port_tagged(p->mark);

	if (nonce)
		p->mark = 0;
	return nonce;
}
INLINE u32 port_put_tag(struct packet *p, const u64 *nonce)
{
	u32 tag = tag_of(*nonce), slot = tag & (MAX_TAGS - 1);
	u64 *place = bpf_map_lookup_elem(&tag_table, &slot);

	if (!place)
		return 0;
	*place = *nonce;
	p->mark = tag;
	return tag;
}

/* ---- world ---- */

INLINE void port_loop(u32 turns, long (*step)(u32 turn, void *context), void *context)
{
	bpf_loop(turns, step, context, 0); /* the verifier sees the body once */
}
INLINE u64 port_now(void) { return bpf_ktime_get_ns(); }
INLINE u32 port_random(void) { return bpf_get_prandom_u32(); }
INLINE void port_near(const struct config *config, struct five_tuple *to) { (void)config, (void)to; } /* all share the tables */
INLINE void port_lock(struct reconfig *r) { bpf_spin_lock(&r->lock); }
INLINE void port_unlock(struct reconfig *r) { bpf_spin_unlock(&r->lock); }

INLINE void port_count(u32 counter)
{
	u64 *n = bpf_map_lookup_elem(&counter_table, &counter);

	if (n)
		(*n)++;
}
/* Waking the daemon costs the packet an interrupt, and its CPU to the daemon (measured: connect() through four
 * middleboxes +137 us): only for events to which it must answer.  It reads the others by the way. */
INLINE void port_event(const struct event *event)
{
	u64 wake = event_urgency(event->kind) == AT_ONCE ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;

	if (bpf_ringbuf_output(&event_ring, (void *)event, sizeof(*event), wake))
		port_count(COUNT_EVENT_LOST);
}

/* The address of one of our interfaces, 0 if it is not ours. */
INLINE be32 interface_address(const struct config *config, u32 ifindex)
{
	for (u32 i = 0; i < MAX_INTERFACES; i++)
		if (i < config->interface_count && config->interfaces[i].ifindex == ifindex)
			return config->interfaces[i].address;
	return 0;
}

/* The interface that has one of our addresses, 0: none. */
INLINE u32 interface_of(const struct config *config, be32 address)
{
	for (u32 i = 0; i < MAX_INTERFACES; i++)
		if (i < config->interface_count && config->interfaces[i].address == address)
			return config->interfaces[i].ifindex;
	return 0;
}

/* Asks the kernel's routing table.  bpf_fib_lookup() answers only where forwarding is on.  An end host takes the
 * interface in hand and lets the kernel find the neighbour; the daemon writes the true next hop within a second, and
 * beforehand for the hosts of its policies. */
INLINE int route_lookup(struct packet *p, struct config *config, be32 address, be32 from, struct next_hop *hop)
{
	struct bpf_fib_lookup fib = { .family = FAMILY_INET, .ipv4_dst = address };
	u32 here = interface_address(config, p->ifindex) ? p->ifindex : config->interfaces[0].ifindex;

	if (from)
		here = interface_of(config, from);
	fib.ipv4_src = from ? from : interface_address(config, here);
	fib.ifindex = here;
	long found = bpf_fib_lookup(p, &fib, sizeof(fib), 0);
	hop->address = address;
	switch (found) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		hop->resolved = 1;
		__builtin_memcpy(hop->destination, fib.dmac, 6);
		__builtin_memcpy(hop->source, fib.smac, 6);
		hop->ifindex = fib.ifindex;
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH: hop->ifindex = fib.ifindex; break;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
	case BPF_FIB_LKUP_RET_FRAG_NEEDED: hop->ifindex = here; break;
	default: return -1;
	}
	hop->from = from ? from : interface_address(config, hop->ifindex);
	hop->bound = from != 0;
	return 0;
}

/* For the neighbours beyond those that the table holds: one next hop an interface, whose neighbour the kernel finds for each
 * packet. */
INLINE u32 shared_hop(const struct config *config, struct next_hop *hop)
{
	for (u32 i = 0; i < MAX_INTERFACES; i++) {
		if (i >= config->interface_count || config->interfaces[i].ifindex != hop->ifindex)
			continue;
		u32 index = SHARED_NEXT_HOPS + i;
		hop->address = 0;
		hop->resolved = 0;
		bpf_map_update_elem(&next_hop_table, &index, hop, BPF_ANY);
		return index;
	}
	return 0;
}

/* The index of the next hop towards an address: cached, and looked up once. */
NOINLINE u32 port_route(struct packet *p, be32 address, be32 from)
{
	struct hop_key key = { address, from };
	u32 zero = 0, *known = bpf_map_lookup_elem(&next_hop_index, &key);
	u32 *count = bpf_map_lookup_elem(&next_hop_count, &zero);
	struct config *config = port_config();
	struct next_hop fresh = {};

	if (!config || !count)
		return 0;
	if (known) {
		struct next_hop *hop = port_next_hop_at(*known);
		if (hop && hop->resolved)
			return *known;
	}
	if (route_lookup(p, config, address, from, &fresh))
		return known ? *known : 0;
	if (known && !fresh.resolved)
		return *known;
	u32 index = known ? *known : *count + 1 < SHARED_NEXT_HOPS ? __sync_fetch_and_add(count, 1) + 1 : SHARED_NEXT_HOPS;
	if (index >= SHARED_NEXT_HOPS)
		return shared_hop(config, &fresh);
	bpf_map_update_elem(&next_hop_table, &index, &fresh, BPF_ANY);
	bpf_map_update_elem(&next_hop_index, &key, &index, BPF_ANY);
	return index;
}

/* ---- out ---- */

/* Writes the addresses of a resolved next hop; < 0: the kernel must find the neighbour. */
INLINE int address_frame(struct packet *p, const struct next_hop *hop)
{
	struct wire_ethernet *ethernet = port_data(p);

	if (!hop->resolved)
		return -1;
	if ((void *)(ethernet + 1) > port_data_end(p))
		return -1;
	__builtin_memcpy(ethernet->destination, hop->destination, 6);
	__builtin_memcpy(ethernet->source, hop->source, 6);
	return 0;
}

/* The packet leaves by another way than the one it is on: from ingress, or by another interface. */
INLINE int port_redirect(struct packet *p, u32 index)
{
	struct next_hop *hop = port_next_hop_at(index);

	if (!hop)
		return VERDICT_DROP;
	p->mark = MARK_SENT;
	if (!address_frame(p, hop))
		return bpf_redirect(hop->ifindex, 0) == TC_ACT_REDIRECT ? VERDICT_SENT : VERDICT_DROP;
	port_count(COUNT_NEXT_HOP_KERNEL);
	return bpf_redirect_neigh(hop->ifindex, 0, 0, 0) == TC_ACT_REDIRECT ? VERDICT_SENT : VERDICT_DROP;
}

/* From egress: the packet goes on where it is, with the right addresses, if that is where its next hop is.
 * Index 0: whatever the local stack has chosen is right (a packet that goes back where the SYN came from). */
INLINE int port_leave(struct packet *p, u32 index)
{
	struct next_hop *hop = index ? port_next_hop_at(index) : 0;

	if (!hop)
		return VERDICT_PASS;
	if (hop->ifindex == p->ifindex && !address_frame(p, hop))
		return VERDICT_PASS;
	return port_redirect(p, index);
}

/* What has been cut from a copy comes by the device's entrance anew, where its length is taken for the queue.  Until then a
 * shaper would count all that it was cut from, and if that had been popped before, 4 GB: the kernel takes the transport
 * header for the place where it was. */
INLINE int port_leave_cut(struct packet *p, u32 index)
{
	if (index)
		return port_redirect(p, index);
	p->mark = MARK_SENT;
	return bpf_redirect(p->ifindex, 0) == TC_ACT_REDIRECT ? VERDICT_SENT : VERDICT_DROP;
}

INLINE void port_send_copy(struct packet *p, u32 index)
{
	struct next_hop *hop = port_next_hop_at(index);

	if (!hop)
		return;
	/* an unresolved neighbour: the egress program sees the mark and lets the kernel find it */
	p->mark = address_frame(p, hop) ? MARK_EMIT : MARK_SENT;
	struct scratch *x = port_scratch();
	if (x)
		x->emission.armed = 0;
	if (bpf_clone_redirect(p, hop->ifindex, 0))
		port_count(COUNT_EMIT_FAILED);
	p->mark = 0;
	bpf_skb_pull_data(p, AT_OPTIONS); /* the copy shares our headers until we make them our own */
}

NOINLINE int port_park(struct packet *p)
{
	struct config *config = port_config();

	port_count(COUNT_PARKED);
	return p && config && bpf_redirect(config->parking, 0) == TC_ACT_REDIRECT ? VERDICT_SENT : VERDICT_DROP;
}
INLINE int port_was_parked(struct packet *p) { return p->mark == MARK_PARKED; } /* the daemon's socket says so */

INLINE int port_deliver(struct packet *p)
{
	struct wire_ethernet *ethernet = port_data(p);
	u8 swap[6];

	if ((void *)(ethernet + 1) > port_data_end(p))
		return VERDICT_DROP;
	__builtin_memcpy(swap, ethernet->destination, 6);
	__builtin_memcpy(ethernet->destination, ethernet->source, 6);
	__builtin_memcpy(ethernet->source, swap, 6);
	p->mark = MARK_SENT;
	return bpf_redirect(p->ifindex, BPF_F_INGRESS) == TC_ACT_REDIRECT ? VERDICT_SENT : VERDICT_DROP;
}

INLINE void port_deliver_copy(struct packet *p, u32 ifindex)
{
	p->mark = MARK_SENT;
	if (bpf_clone_redirect(p, ifindex, BPF_F_INGRESS))
		port_count(COUNT_EMIT_FAILED);
}

/* The emission in scratch leaves as a copy of the packet in hand: the copy comes by the egress program once more,
 * which shapes it (emit.h). */
INLINE void port_emit(struct packet *p)
{
	struct scratch *x = port_scratch();

	if (!x)
		return;
	x->emission.armed = 1;
	p->mark = MARK_EMIT;
	if (bpf_clone_redirect(p, p->ifindex, 0))
		port_count(COUNT_EMIT_FAILED);
	else
		port_count(COUNT_EMITTED);
	x->emission.armed = 0;
	p->mark = 0;
	bpf_skb_pull_data(p, AT_OPTIONS);
}

#endif
