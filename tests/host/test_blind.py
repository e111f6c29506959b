# SPDX-License-Identifier: Apache-2.0
"""Segments with the right five-tuple and numbers that are guessed: nobody believes them (docs/security.md).  Numbers that are
far ahead because much has got lost are believed in the end."""

import random

import pytest

from lab.judge import ACK, Segment
from tests.host.library import INGRESS
from tests.host.segments import frame_of

FIN = 1
KINDS = {"acknowledgments": (ACK, b""), "data": (ACK, b"x" * 900), "FINs": (FIN | ACK, b"")}
GUESSES = 50


@pytest.fixture
def net(world):
    world.client, world.mb1, world.mb2, world.server = world.chain("client", "mb1", "mb2", "server")
    world.client.policies.add({"filter": "tcp dst port 5001", "chain": ["mb1"]})
    world.pairs = world.talk(world.client, world.server, count=2)
    return world


def heard_by(host, src, dst, seq, ack, flags, payload=b""):
    """A segment arrives, and what the stack would make of it is nobody's business."""
    s = Segment(0.0, src, dst, seq % 2**32, ack % 2**32, flags, len(payload), (), payload, None, 0, 512, 0, False)
    return host.library.pass_(INGRESS, frame_of(s))


def entries(host):
    """How an arriving segment of each session is keyed, and what the entry has seen."""
    ends = [((k["src"], k["sport"]), (k["dst"], k["dport"]), v["seen"])
            for k, v in host.core.ingress_map.items()]  # fmt: skip
    assert ends
    return ends


@pytest.mark.parametrize("kind", KINDS)
def test_segments_with_guessed_numbers(net, kind):
    rng, (flags, payload) = random.Random(1), KINDS[kind]
    net.quiet = True
    net.run(0.5)
    for host in (net.client, net.mb1, net.server):
        before = entries(host)
        for _ in range(GUESSES):
            for src, dst, _ in before:
                heard_by(host, src, dst, rng.getrandbits(32), rng.getrandbits(32), flags, payload)
        assert entries(host) == [(src, dst, {**old, "far": new["far"]}) for (src, dst, old), (*_, new) in
                                 zip(before, entries(host), strict=True)]  # fmt: skip
        assert not any(s["flags"] & 48 for s in host.sessions().values())  # SESSION_FINS
    net.quiet = False
    for here, _ in net.pairs:
        assert net.client.reconfigure(net.client.nonce(here), chain=["mb2"], until="server") == ("done", "")
    net.run(0.5)
    net.finish(net.pairs)


@pytest.mark.parametrize("jump", [1 << 26, 1 << 30])
def test_an_acknowledgment_that_is_far_because_many_got_lost_is_believed_when_the_next_comes(net, jump):
    src, dst, seen = entries(net.mb1)[0]
    for more, believed in ((0, False), (3000, True), (90_000, True)):
        heard_by(net.mb1, src, dst, seen["seq_high"], seen["ack"] + jump + more, ACK)
        now = next(new for s, d, new in entries(net.mb1) if (s, d) == (src, dst))
        assert now["ack"] == ((seen["ack"] + jump + more) % 2**32 if believed else seen["ack"])
