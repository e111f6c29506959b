# SPDX-License-Identifier: Apache-2.0
"""No agent at the next hop: the policy says fail or bypass, and either is an event (paper II-A leaves it open)."""

import pytest

from lab.judge import RST

TO_SERVER = {"filter": "tcp dst port 5001"}


def without(world, how, silent):
    """A chain by mb1, which has no agent: it resets what it is sent, or is down."""
    client, server = world.chain("client", "server")
    mb1 = world.add("mb1", agent=False)
    mb1.dead = silent
    client.policies.add({**TO_SERVER, "chain": ["mb1"], "on_no_agent": how})
    server.listening.add(5001)

    def answers(s, frame):
        mb1.sends(type(s)(world.now, s.dst, s.src, 0, s.end if not s.payload else (s.seq + 1 + s.length) % 2**32, RST | 16, 0))

    mb1.rewrite = answers  # what it forwards is nothing; what it says is no
    return client, server


@pytest.mark.parametrize("silent", [True, False], ids=["down", "resets"])
def test_fail_gives_the_application_a_refusal(world, silent):
    client, server = without(world, "fail", silent)
    socket = client.connect(server.addresses[0])
    world.run_until(lambda: socket.reset, 20)
    assert not server.accepted
    if silent:
        assert [e.value for e in client.told("no_agent")] != []
    client.expiry.linger(1.0)
    world.run(30)
    assert not client.sessions()


@pytest.mark.parametrize("silent", [True, False], ids=["down", "resets"])
def test_bypass_lets_the_session_go_without_a_chain(world, silent):
    client, server = without(world, "bypass", silent)
    socket = client.connect(server.addresses[0])
    world.run_until(lambda: socket.state == "open", 20)
    assert len(client.told("no_agent")) == 1
    there = server.accepted[-1]
    for s in (socket, there):
        s.write(20_000)
    world.run(0.1)
    world.finish([(socket, there)], allowed=("reset", "skipped", "ack above"))
    assert not server.sessions(), "the server has no part in a chain"


def test_a_server_without_an_agent_still_gets_its_sessions(world):
    """An empty chain towards it: what leaves is an ordinary connection, with data in its SYN that it does not take."""
    client, server = world.add("client"), world.add("server", agent=False)
    client.policies.add({**TO_SERVER, "chain": []})
    pairs = world.talk(client, server)
    assert client.sessions()
    world.finish(pairs)
