# SPDX-License-Identifier: Apache-2.0
"""Attacks on live sessions: signalling that is recorded and played again, altered or made up; blind segments; floods."""

import random
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from lab.network import end
from lab.topologies import build
from tests.net.conftest import counters, emptied, no_session_was_reset, reconfigured, sessions, talking, transfer
from tests.net.wiretap import Wiretap, altered, guesses

PORT = 5001
HOSTS = ("client", "mb1", "mb2", "server")
MOST_RESIDENT = 32 << 20  # bytes by which a daemon may grow under a flood
long = pytest.mark.long


def chains(lab):
    """What every agent knows of every live session, apart from what data changes."""
    live = {h: [s for s in sessions(lab, h) if s["state"] != "over"] for h in HOSTS}
    return {h: {s["id"]: (s["left"], s["right"], s["lock"], s["state"], s["role"]) for s in found} for h, found in live.items()}


def total(lab, *names):
    return sum(counters(lab, host).get(name, 0) for host in HOSTS for name in names)


@contextmanager
def attacked(lab, tmp_path, **load):
    """Hashed sessions whose signalling is recorded while a middlebox leaves, comes back and is replaced: (talk, wiretap)."""
    tap = Wiretap(lab)
    try:
        with talking(lab, tmp_path, **load) as talk:
            for change in ({"remove": "mb1"}, {"insert": ["mb1"]}, {"replace": {"mb1": ["mb2"]}}):
                reconfigured(lab, "client", **change)
            time.sleep(2.5)  # until every record is forgotten
            recorded = tap.stop()
            assert len(recorded) > 100
            yield tap, recorded
            reconfigured(lab, "client", replace={"mb2": ["mb1"]})
            reconfigured(lab, "client", remove="mb1")
        assert (talk.compared.sessions, talk.compared.clean) == (10, True), talk.compared.reasons
        assert no_session_was_reset(lab)
    finally:
        tap.close()
    emptied(lab)


@pytest.fixture
def net(lab_of):
    return lab_of("chain", middleboxes=2, initial=1, hmac="on", rate=100)


@pytest.mark.parametrize("order", ["as it was", pytest.param("mixed", marks=long)])
def test_recorded_signalling_is_played_again(net, tmp_path, order):
    """All of it, three times: every answer is dropped or the one that was given before."""
    with attacked(net, tmp_path) as (tap, recorded):
        before, dropped = chains(net), total(net, "drop_stale_txid", "drop_collision", "drop_unknown_session")
        rng = random.Random(7)
        for _ in range(3):
            tap.play(recorded if order == "as it was" else rng.sample(recorded, len(recorded)))
            time.sleep(0.5)
        assert chains(net) == before
        assert total(net, "drop_stale_txid", "drop_collision", "drop_unknown_session") > dropped


@long
def test_altered_signalling_reaches_nobody(net, tmp_path):
    """One bit of a signed message is wrong, or its end is missing."""
    with attacked(net, tmp_path) as (tap, recorded):
        before, rng = chains(net), random.Random(8)
        dropped = total(net, "drop_bad_signature", "drop_bad_message", "drop_unsigned")
        tap.play([altered(rng.choice(recorded), rng) for _ in range(3000)])
        time.sleep(0.5)
        assert chains(net) == before
        assert total(net, "drop_bad_signature", "drop_bad_message", "drop_unsigned") - dropped > 2000


BLIND_CASES = [
    "resets",
    *(pytest.param(kind, marks=long) for kind in ("acknowledgments", "FINs", "data")),
]


@pytest.mark.parametrize("kind", BLIND_CASES)
def test_blind_segments_with_the_right_five_tuple(net, tmp_path, kind):
    """Segments with guessed numbers, on both sides of a middlebox: nobody believes them."""
    for host in HOSTS:
        net.agent(host).request("tune", linger_s=1)  # what is thought to be over is soon forgotten
    tap = Wiretap(net)
    try:
        with talking(net, tmp_path) as talk:
            tap.stop()
            seen = sessions(net, "mb1")
            before = {s["id"] for s in seen}
            tap.play(guesses([s[side] for s in seen for side in ("left", "right")], kind, count=20))
            time.sleep(3)
            for host in ("client", "mb1", "server"):
                assert {(s["id"], s["state"]) for s in sessions(net, host)} == {(i, "established") for i in before}
            reconfigured(net, "client", replace={"mb1": ["mb2"]})
            reconfigured(net, "client", remove="mb2")
        assert (talk.compared.sessions, talk.compared.clean) == (10, True), talk.compared.reasons
        assert no_session_was_reset(net)
    finally:
        tap.close()
    emptied(net)


# ---- floods ----


def resident(lab, host):
    with open(f"/proc/{lab.state.agents[host].pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024


FLOOD = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
print("ready", flush=True)
open_ = []
for n in range(18000):  # SYNs that are signed and that nobody answers
    s = socket.socket(); s.setblocking(False); open_.append(s)
    s.connect_ex((sys.argv[1], int(sys.argv[2])))
print("sent", flush=True)
time.sleep(60)
"""


@long
def test_a_flood_of_signed_syns_that_nobody_answers(lab_of, tmp_path):
    """A second client opens 18,000 sessions that stay half-open; one of the first client begins within four seconds."""
    topology = build("chain", {"middleboxes": "2", "initial": "1", "hmac": "on"})
    second = replace(topology.host("client"), name="client2", index=9)
    policies = (*topology.policies, replace(topology.policies[0], at="client2"))
    lab = lab_of(replace(topology, hosts=(*topology.hosts, second), policies=policies))
    server = lab.topology.host("server").address
    lab.run("server", ["iptables", "-A", "INPUT", "-p", "tcp", "--dport", str(PORT + 1), "-j", "DROP"])
    before = {host: resident(lab, host) for host in ("mb1", "server")}
    flood = lab.popen("client2", [sys.executable, "-c", FLOOD, server, str(PORT + 1)], stdout=subprocess.PIPE)
    try:
        assert flood.stdout.readline() == "ready\n"
        for _ in range(5):
            began = time.monotonic()
            with talking(lab, tmp_path, sessions=1, seconds=0.5) as talk:
                assert time.monotonic() - began < 4
            assert (talk.compared.sessions, talk.compared.clean) == (1, True), talk.compared.reasons
        assert flood.stdout.readline() == "sent\n"
        for host, bytes_ in before.items():
            assert resident(lab, host) - bytes_ < MOST_RESIDENT
            assert len(sessions(lab, host)) <= 16384
    finally:
        end(flood)


@long
@pytest.mark.parametrize("what", ["forged SYNs", "lock requests", "all that was recorded"])
def test_a_flood_of_messages(net, tmp_path, what):
    """20,000 messages that are forged or recorded: sessions begin and change meanwhile, and memory stays."""
    with attacked(net, tmp_path) as (tap, recorded):
        before = {host: resident(net, host) for host in HOSTS}
        rng = random.Random(9)
        syns = [p for p in recorded if p[33] & 0x12 == 0x02]
        control = [p for p in recorded if p[40:44] == b"\xfe\x04DY"]
        pools = {"forged SYNs": [altered(p, rng) for p in syns], "lock requests": [p for p in syns if p in control]}
        pool = pools.get(what, recorded)
        assert pool
        flood = [rng.choice(pool) for _ in range(20_000)]
        (tmp_path / "other").mkdir()
        server = net.topology.host("server").address
        for part in range(4):
            tap.play(flood[part * 5000 : (part + 1) * 5000])
            began = time.monotonic()
            assert transfer(net, "client", "server", server, (5002, 5002), tmp_path / "other", sessions=1, seconds=0.2).clean
            assert time.monotonic() - began < 4 + 0.2 + 2  # to begin; to talk; to end
        for host, bytes_ in before.items():
            assert resident(net, host) - bytes_ < MOST_RESIDENT
