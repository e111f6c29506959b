# SPDX-License-Identifier: Apache-2.0
"""Heartbeats: who has a session that its neighbours no longer have finds out, and forgets it."""

import time

import pytest

from lab.network import wait_until
from tests.net.conftest import no_session_was_reset, talking

BEAT_S = 0.5


@pytest.fixture
def net(lab_of, tmp_path):
    """Silent sessions through a middlebox; every agent asks after half a second of silence.  What they have said before, and
    say at their end if they live, is hashed."""
    lab = lab_of("chain", middleboxes=1, hmac="on")
    lab.lost = False  # a test says so when the sessions cannot end as they should
    for host in lab.topology.names:
        lab.agent(host).request("tune", heartbeat_s=BEAT_S)
    with talking(lab, tmp_path, sessions=5, message=100, every_us=30_000_000) as talk:
        yield lab
        if lab.lost:
            talk.reset("client")
    assert talk.what_came_is_right()
    if not lab.lost:
        assert (talk.compared.sessions, talk.compared.clean) == (5, True), talk.compared.reasons
        assert no_session_was_reset(lab)


def states(lab, host):
    return [s["state"] for s in lab.agent(host).request("sessions")["sessions"]]


def test_silent_sessions_that_live_stay(net):
    time.sleep(4)
    assert {h: states(net, h) for h in net.topology.names} == {h: ["established"] * 5 for h in net.topology.names}
    counters = net.agent("mb1").request("stats")["counters"]
    assert counters["control_received"] >= 5 * 4  # questions and answers of both sides


def test_a_neighbour_without_the_session_says_so(net):
    """The middlebox's agent has lost its tables."""
    net.lost = True
    net.stop_agent("mb1")
    net.start_agents(True, only=["mb1"])
    wait_until(lambda: states(net, "client") == states(net, "server") == ["over"] * 5, 10, "over at both ends")
    assert states(net, "mb1") == []


def test_a_neighbour_that_does_not_answer_is_gone(net):
    net.lost = True
    net.run("mb1", ["ip", "link", "set", "eth0", "down"])
    wait_until(lambda: states(net, "client") == states(net, "server") == ["over"] * 5, 15, "over at both ends")
