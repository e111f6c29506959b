# SPDX-License-Identifier: Apache-2.0
"""Sampled changes that the simulator cannot see, each with the reason: the same behaviour, or another check's to find."""

from __future__ import annotations

from dataclasses import dataclass

from tests.sim.mutants.mutant import Mutant

# Functions that no simulated host calls (gcov says so), and what does.  Nothing is sampled there.
ELSEWHERE = {
    "splice_compatible": "both sessions of a simulated proxy have timestamps or none: tests/net/test_proxy.py",
    "command_next": "classifiers are not simulated: tests/net/test_steering.py",
    "setup_bypass": "every host has an agent: tests/net/test_chain.py",
    "setup_fail": "every host has an agent: tests/net/test_chain.py",
    "plain_syn": "every host has an agent: tests/net/test_chain.py, test_sessions.py",
    "lock_abandon": "every address can be reached, tables have room",
}


@dataclass(frozen=True)
class Explained:
    """A change of a line, without its indentation, and why it lives."""

    header: str
    was: str
    now: str
    why: str


EXPLAINED = (
    Explained("twopaths.h",
              "r->flags |= RECONFIG_FIRST_BYTE;",
              ";",
              "tells people when the first byte came, and nobody else"),
    Explained("setup.h",
              "session_forget(before, nonce); /* it has left this middlebox (or never quite came), and comes back */",
              ";",
              "the same: session_join_left forgets whatever has the five-tuple"),
    Explained("segment.h",
              "if (i >= s->sack_blocks || block > 56)",
              "if (i >= s->sack_blocks || block >= 56)",
              "the same: in 60 bytes no block begins above 52"),
    Explained("segment.h",
              "if (i >= s->sack_blocks || block > 56)",
              "if (i >= s->sack_blocks || block > 57)",
              "the same: in 60 bytes no block begins above 52"),
    Explained("filter.h",
              "INLINE u32 filter_size(u16 code) { return (code & 0x18) == 0x10 ? 1 : (code & 0x18) == 0x08 ? 2 : 4; }",
              "INLINE u32 filter_size(u16 code) { return (code & 25) == 0x10 ? 1 : (code & 0x18) == 0x08 ? 2 : 4; }",
              "the same for every program that libpcap writes: only LD loads from the packet by size"),
    Explained("anchor.h",
              "segment_clip_sack(s, plan->sack_delta, (struct sack_bounds){ 1, at - 0x40000000, at + 0x40000000, at });",
              "segment_clip_sack(s, plan->sack_delta, (struct sack_bounds){ 1, at - 0x40000000, at - 0x40000000, at });",
              "hides all SACK blocks for as long as a reconfiguration lasts: TCP sends more than it needs, which is not wrong"),
    Explained("setup.h",
              "see_tsval(&e->seen, x->segment.tsval);",
              ";",
              "the same: no reconfiguration begins before the ACK, which has a later timestamp"),
    Explained("release.h",
              "for (u32 i = 0; i < MAX_MIDDLEBOXES; i++) {",
              "for (u32 i = 0; i <= MAX_MIDDLEBOXES; i++) {",
              "the same: a chain is never longer, the line after it ends the loop"),
    Explained("lock.h",
              "if (hop)",
              "if (!(hop))",
              "a request waits where the other left anchor is, unless that one has given up: make verify"),
)  # fmt: skip
_WHY = {(e.header, e.was, e.now): e.why for e in EXPLAINED}


def why(mutant: Mutant) -> str:
    """The reason that is on record for a survivor, "" if there is none."""
    return _WHY.get((mutant.header, mutant.was.strip(), mutant.now.strip()), "")
