# SPDX-License-Identifier: Apache-2.0
"""New data waits while a middlebox's state moves (docs/protocol.md 4.9): nothing on the new path before, all of it in order
after, bounded; on the old path if the state cannot move."""

import pytest

from dysco_ns.agent.parking import Waiting
from lab.judge import ahead

TO_SERVER = {"filter": "tcp dst port 5001"}
PARKING = 7  # any interface: the test is it
LATE = "a timestamp fell"  # on the old path what has waited comes after acknowledgments that are younger: dropped, and sent again


@pytest.fixture
def net(world):
    world.client, world.mb1, world.mb2, world.server = world.chain("client", "mb1", "mb2", "server")
    world.client.policies.add({**TO_SERVER, "chain": ["mb1"]})
    for host in (world.client, world.server):
        host.configure(parking=PARKING)
    world.pairs = world.talk(world.client, world.server)
    world.nonce = world.client.nonce(world.pairs[0][0])
    return world


def migrates(net, takes_s, problem=""):
    """Replaces mb1 by mb2; the state takes so long to move.  Its outcome comes into the list."""
    leader = net.client.leader
    return net.client.begin(net.nonce, "server", lambda: net.after(takes_s, lambda: leader.migrated(net.nonce, problem, 1.0)),
                            chain=["mb2"])  # fmt: skip


def data_at(net, host):
    return net.seen(host, lambda s: s.length)


def test_new_data_waits_until_the_state_has_moved_and_comes_in_order(net):
    result = migrates(net, 0.2)
    net.run_until(lambda: net.client.told("migrate"))
    net.run(0.15)
    assert len(net.client.waiting) > 10
    assert len(net.server.waiting) > 10
    sent, carried = net.pairs[0][0].top, ahead(net.pairs[0][0].top, net.pairs[0][0].una)
    assert carried > 10_000, "the application is not held up"
    assert not [s for s in data_at(net, "mb2") if not s.payload.startswith(b"DY")], "nothing has gone on the new path"
    net.run_until(lambda: result)
    assert (result[0].outcome, result[0].migration_us) == ("done", 1.0)
    net.run(0.1)
    assert ahead(net.pairs[0][0].una, sent) >= 0
    assert (len(net.client.waiting), len(net.server.waiting)) == (0, 0)
    net.finish(net.pairs)  # and the wires: no byte of the new path was skipped, or early
    net.emptied()


def test_if_the_state_cannot_move_what_waits_goes_on_the_old_path(net):
    result = migrates(net, 0.2, "no room for it")
    net.run_until(lambda: net.client.told("migrate"))
    net.run(0.1)
    assert len(net.client.waiting) > 5
    net.run_until(lambda: result)
    assert (result[0].outcome, result[0].reason) == ("cancelled", "the state was not migrated: no room for it")
    net.run(0.1)
    assert not [s for s in data_at(net, "mb2") if not s.payload.startswith(b"DY")]
    assert not net.mb2.sessions() or all(s["over_ns"] for s in net.mb2.sessions().values())
    net.finish(net.pairs, allowed=("reset", "tsval_behind_max"), forgiven=LATE)  # reset: of the new path, it is cancelled
    net.emptied()


def test_there_is_room_for_so_much_and_tcp_repairs_the_rest(net):
    for host in (net.client, net.server):
        host.waiting = Waiting(most=5)
    result = migrates(net, 0.2)
    net.run_until(lambda: result, 20)
    assert result[0].outcome == "done"
    assert net.client.counters["parked"] > 5
    net.finish(net.pairs, allowed=("skipped",))  # what did not fit is sent again, late
    net.emptied()


@pytest.mark.parametrize("who", ["client", "server"])
def test_an_anchor_without_a_place_to_wait_refuses(net, who):
    net.hosts[who].configure(parking=0)
    result = migrates(net, 0.1)
    net.run_until(lambda: result)
    assert (result[0].outcome, result[0].reason) == ("refused", "parking")
    assert not net.client.counters.get("parked")
    net.finish(net.pairs)


def test_who_waits_for_an_old_path_that_does_not_drain_gives_up(net):
    """The old path swallows data, not messages: it cannot drain, and new data has waited for half a minute."""
    result = migrates(net, 0.1)
    net.lost = lambda host, s: host is net.mb1 and s.length > 100 and "254" not in s.options
    net.run(0.5)
    net.quiet = True
    net.run_until(lambda: result, 60)
    assert (result[0].outcome, result[0].reason) == ("cancelled", "the state was not migrated: the old path has not drained")
    net.lost = lambda host, s: False
    net.quiet = False
    net.run(0.2)
    net.finish(net.pairs, seconds=200, allowed=("reset", "skipped", "tsval_behind_max"), forgiven=LATE)
    net.emptied(seconds=200)
