# SPDX-License-Identifier: Apache-2.0
"""Wrong changes by hand: each is a mistake that somebody could make, or has made."""

from tests.sim.mutants.mutant import Mutant

BY_HAND = (
    Mutant("beta off by one", "twopaths.h", "r->beta_out = high - (r->isn_out + 1);", "r->beta_out = high - r->isn_out;"),
    Mutant("old path is shown acks of the new", "twopaths.h", "plan->ack_old = seq_min(s->ack, r->old_rcvd);",
           "plan->ack_old = s->ack;"),
    Mutant("split one byte late", "twopaths.h", "plan->old_bytes = r->old_sent - s->seq;",
           "plan->old_bytes = r->old_sent - s->seq + 1;"),
    Mutant("a lock that two can have", "lock.h", "	if (s->lock != UNLOCKED && s->txid != txid)\n		return -1;",
           "	if (0)\n		return -1;"),
    Mutant("deltas without the egress side", "lock.h",
           "delta_of(port_ingress(&in_key), m) + delta_of(port_egress(&out_key), m);\n\n	if (left != right) {",
           "delta_of(port_ingress(&in_key), m);\n\n	if (left != right) {"),
    Mutant("old path given up before its data", "twopaths.h", "	if (r->old_rcvd_acked != r->old_rcvd)\n		return 0;", ""),
    Mutant("reneging shown", "anchor.h", "plan->ack_is_start ? high : high - 1", "high - 1"),
    Mutant("late echoes taken for new ones", "timestamps.h", "s->tsecr == r->ts_out0 || !(r->flags & RECONFIG_BETA_OUT)",
           "!(r->flags & RECONFIG_BETA_OUT)"),
    Mutant("anchors before the handshake is over", "newpath.h",
           "return (out->seen.has & in->seen.has & (SEEN_SEQ | SEEN_ACK)) == (SEEN_SEQ | SEEN_ACK);", "return 1;"),
    Mutant("a cancelled path resets the session", "datapath.h",
           "return r && r->phase < PHASE_READY && same_tuple(key, &r->new_in);", "return 0;"),
    Mutant("no tombstones", "session.h", "	s->burials++;\n	entry_bury(port_ingress(&key));", "	port_drop_ingress(&key);"),
    Mutant("checksum of the cut message forgotten", "setup_message.h",
           "x->segment.payload_change = ~port_sum(x->message, (n + 3) & ~3u, 0);", ""),
    Mutant("SACK blocks keep the other path's numbers", "anchor.h", "segment_clip_sack(s, plan->sack_delta, (struct",
           "segment_clip_sack(s, 0, (struct"),
    Mutant("repeated SYNs make second subsessions", "setup.h", "if (!e || e->flags & ENTRY_PENDING) {", "if (1) {"),
    Mutant("expired sessions leave entries", "session.h",
           "	egress_forget(&s->right_tuple, nonce);\n", ""),
)  # fmt: skip
