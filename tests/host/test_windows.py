# SPDX-License-Identifier: Apache-2.0
"""Window throttling (paper IV, docs/protocol.md 4.10): while the old path lives no end host is offered more than so much."""

import pytest

from lab.judge import ACK, SYN
from tests.windows import overshoot

TO_SERVER = {"filter": "tcp dst port 5001"}


@pytest.fixture
def changed(world):
    """changed(throttle, held): the chain of a busy session is changed, and either the new path's handshake or what was last sent
    on the old path takes a second.  Its sockets, from when on both ends have a record and until when both have not drained."""
    client, _, _, server = world.chain("client", "mb1", "mb2", "server")
    client.policies.add({**TO_SERVER, "chain": ["mb1"]})

    def change(throttle, held):
        for host in (client, server):
            host.configure(throttle=throttle)
        pairs = world.talk(client, server)
        world.run(0.2)
        end = world.now + 1.0
        world.lost = lambda host, s: world.now < end and (
            host is server and s.flags == SYN | ACK and "254" not in s.options if held == "handshake"
            else host.name == "mb1" and s.length > 100 and "254" not in s.options)  # fmt: skip
        world.run(0.02)
        result = client.begin(client.nonce(pairs[0][0]), "server", chain=["mb2"])
        world.run(0.01)
        since = world.now
        world.run_until(lambda: client.told("drained") or server.told("drained"))
        until = world.now
        world.run_until(lambda: result)
        assert result[0].outcome == "done"
        world.run(0.5)
        return pairs, since, until

    return change


@pytest.mark.parametrize("held", ["handshake", "old path"])
@pytest.mark.parametrize("throttle", [16384, 4000, 0])
def test_no_end_host_is_offered_more_while_the_old_path_lives(world, changed, throttle, held):
    """... and as much as before afterwards."""
    pairs, since, until = changed(throttle, held)
    assert until - since > 0.8
    for socket in pairs[0]:
        assert overshoot(socket.shown, since, until, throttle) <= 0
        assert max(window for at, _, window in socket.shown if at > until + 0.4) > 50_000
    world.finish(pairs, allowed=("skipped",))


def test_by_default_they_are(world, changed):
    """The control."""
    pairs, since, until = changed(None, "handshake")
    assert all(overshoot(socket.shown, since, until, 16384) > 40_000 for socket in pairs[0])
    world.finish(pairs)
