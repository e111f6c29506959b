/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the core asks of a backend.  A backend defines `struct packet` and these functions, then includes datapath.h.
 *
 *   packet   port_data, port_data_end      the linear headers, from the Ethernet header on
 *            port_pull(p, n)               make n bytes linear and writable; < 0: shorter than that
 *            port_length(p)                bytes of the frame
 *            port_load(p, at, to, n), port_store(p, at, from, n)
 *            port_resize(p, n)             cut or extend at the tail
 *            port_checksum(p, pseudo, tcp) add changes to the TCP checksum, partial or not
 *            port_checksum_at(p, field, change)  the same for a checksum field at hand: the fast path's
 *            port_payload_sum(p, at, n)    one's-complement sum of payload bytes
 *            port_gso_size(p)              payload bytes per wire segment of a super-packet, 0: ordinary
 *   tables   port_egress, port_ingress, port_session, port_reconfig (find by key); port_put_* ; port_drop_*
 *            port_swap(at, from, to)       atomic compare-and-swap of a u64 in a table: non-zero if done
 *            port_config, port_policy(i), port_key(i), port_next_hop_at(i), port_scratch, port_tag, port_put_tag
 *            port_tagged(number)           the session whose SYN was tagged with a number that port_put_tag returned
 *            port_type(i), port_member(address), port_put_member, port_add(at, n)  middleboxes by type, their sessions
 *            port_each_session(step)       calls step(table, nonce, session, 0) until it answers non-zero;
 *                                          the step may drop its session
 *   world    port_now() ns, port_random(), port_sum(from, n, seed)
 *            port_route(p, address, from)  index of the next hop, 0: no route; from: our address to use, 0: any
 *            port_near(config, tuple)      moves a new subsession's source port on to one whose segments come to this processor
 *            port_loop(n, step, context)   calls step(i, context) up to n times, until it answers non-zero
 *   out      port_leave(p, hop)            the packet leaves towards a next hop
 *            port_park(p)                  the packet waits where the daemon finds it; port_was_parked(p): it comes from there
 *            port_deliver(p)               the packet goes to the local stack as if it had arrived
 *            port_send_copy(p, hop)        a copy leaves now, the packet stays in hand
 *            port_emit(p)                  the emission in scratch leaves now
 *            port_lock(r), port_unlock(r)  of a reconfiguration record
 *            port_count(counter), port_event(event)
 */
