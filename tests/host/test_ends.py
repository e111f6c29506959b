# SPDX-License-Identifier: Apache-2.0
"""Sessions end in every way, at any moment of a reconfiguration, and leave nothing behind (paper II-A, III-G)."""

from collections import Counter

import pytest

from lab.judge import CONTROL_OPTION, SYN

TO_SERVER = {"filter": "tcp dst port 5001"}
REQUEST_LOCK, ACK_LOCK, RELEASE, ACK_RELEASE, HEARTBEAT, ALIVE = 2, 3, 5, 6, 10, 11


def message(s):
    """The type of a control message (docs/wire-format.md); 0: it is none."""
    return s.payload[3] if CONTROL_OPTION in s.options and s.length > 3 else 0


@pytest.fixture
def net(world):
    """client - mb1 - server with two sessions, and mb2 to take mb1's place."""
    world.client, world.mb1, world.mb2, world.server = world.chain("client", "mb1", "mb2", "server")
    world.client.policies.add({**TO_SERVER, "chain": ["mb1"]})
    world.pairs = world.talk(world.client, world.server, count=2)
    return world


# What gets lost so that a reconfiguration stays where it is: until then nobody has heard of what comes after.
STAYS = {
    "before": lambda s: False,
    "locking": lambda s: message(s) == ACK_LOCK,
    "handshake": lambda s: s.flags & SYN and not message(s) and s.src[0].endswith("3.2") and not s.payload,
    "two paths": lambda s: message(s) in (RELEASE, ACK_RELEASE),
    "settled": lambda s: False,
}


def brought_to(net, phase):
    """Both sessions are being moved from mb1 to mb2, and no further than this."""
    net.lost = lambda host, s: STAYS[phase](s)
    for here, _ in net.pairs:
        if phase != "before":
            net.client.begin(net.client.nonce(here), chain=["mb2"], until="server")
    net.run(0.5 if phase == "settled" else 0.1)
    phases = {record["phase"] for _, record in net.client.core.reconfig_map.items()}
    assert phases <= {{"before": 0, "locking": 1, "handshake": 2, "two paths": 3, "settled": 5}[phase]}


@pytest.mark.parametrize("phase", STAYS)
@pytest.mark.parametrize("end", ["client", "server"])
def test_a_reset_passes_and_ends_the_session_everywhere(net, phase, end):
    brought_to(net, phase)
    for here, there in net.pairs:
        (here if end == "client" else there).abort()
    net.run(0.1)
    assert all((there if end == "client" else here).reset for here, there in net.pairs)
    net.lost = lambda host, s: False
    net.emptied(seconds=200)  # mb2 may have to ask: the reset has passed while the new path was made
    assert net.faults == []


@pytest.mark.parametrize("said_again", [False, True])
@pytest.mark.parametrize("end", ["client", "server"])
def test_a_reset_comes_by_the_new_path_alone_though_nothing_else_has(net, end, said_again):
    """Or it has got lost, and whoever has reset hears from the other again."""
    net.quiet = True
    net.run(0.3)
    brought_to(net, "two paths")

    def on_old_path(s):  # all that ends there gets lost, and what would end it
        return STAYS["two paths"](s) or net.mb1.addresses[0] in (s.src[0], s.dst[0])

    for here, there in net.pairs:
        ends = (here, there) if end == "client" else (there, here)
        net.lost = lambda host, s: said_again or on_old_path(s)
        ends[0].abort()
        net.run(0.01)
        assert ends[1].reset != said_again
        net.lost = lambda host, s: on_old_path(s)
        ends[1].write(100)
        net.run(0.3)
        assert ends[1].reset


@pytest.mark.parametrize("phase", STAYS)
@pytest.mark.parametrize("first", ["client", "server", "both"])
def test_fins_pass_and_every_byte_before_them(net, phase, first):
    """One side closes, or both at once; what was lost is lost no longer a second after."""
    brought_to(net, phase)
    for here, there in net.pairs:
        for end, socket in (("client", here), ("server", there)):
            if first in (end, "both"):
                socket.close()
    net.after(1.0, lambda: setattr(net, "lost", lambda host, s: False))
    net.run(0.2)
    net.finish(net.pairs)
    net.emptied()


@pytest.mark.parametrize("closed", ["client", "server"])
def test_a_half_closed_session_goes_on_and_is_changed(net, closed):
    for here, there in net.pairs:
        (here if closed == "client" else there).close()
    net.run(0.1)
    for here, _ in net.pairs:
        assert net.client.reconfigure(net.client.nonce(here), chain=["mb2"], until="server") == ("done", "")
    net.run(0.3)
    assert {len(h.sessions()) for h in net.hosts.values()} == {2}
    net.finish(net.pairs)
    net.emptied()


def test_a_five_tuple_is_used_again_after_both_have_closed(net):
    net.finish(net.pairs)
    port = net.fresh_port()
    for _ in range(3):
        pairs = net.talk(net.client, net.server, sport=port)
        net.finish(pairs)
        net.run(1.1)  # TIME_WAIT
    assert net.mb1.counters["session_joined"] == 5


def test_both_open_at_once_and_are_one_session(world):
    """Each one's SYN is under way when it gets the other's; both have a policy."""
    left, mb1, mb2, right = world.chain("left", "mb1", "mb2", "right")
    left.policies.add({"filter": "tcp dst port 7001", "chain": ["mb1"]})
    right.policies.add({"filter": "tcp dst port 7000", "chain": ["mb2"]})
    pair = (left.connect(right.addresses[0], 7001, sport=7000), right.connect(left.addresses[0], 7000, sport=7001))
    world.run_until(lambda: all(s.state == "open" for s in pair))
    for socket in pair:
        socket.write(5000)
    world.run(0.1)
    assert len(mb1.sessions()) + len(mb2.sessions()) >= 1
    assert len(set(left.sessions()) & set(right.sessions())) == 1
    world.finish([pair])
    world.emptied()


# ---- silence ----


def test_a_session_that_is_silent_for_too_long_is_forgotten_and_a_busy_one_is_not(world):
    client, mb1, server = world.chain("client", "mb1", "server", idle_s=20.0)
    client.policies.add({**TO_SERVER, "chain": ["mb1"]})
    silent = world.talk(client, server)
    world.quiet = True
    world.run(0.1)
    busy = client.connect(server.addresses[0])
    world.every(5.0, lambda: busy.write(10))
    for host in world.hosts.values():
        host.expiry.linger(1.0)
    world.run(15.0)
    assert {len(h.sessions()) for h in (client, mb1, server)} == {2}
    world.run(30.0)
    assert client.nonce(silent[0][0]) is None
    assert all(set(h.sessions()) == {client.nonce(busy)} for h in (client, mb1, server))


def hearts(world, *hosts, seconds=1.0):
    """These ask after a silence of so long; sessions fall silent."""
    world.quiet = True
    world.run(0.1)
    for host in hosts:
        host.expiry.ask_after(seconds)


def test_heartbeats_tell_when_a_host_on_the_chain_has_died(net):
    hearts(net, net.client, net.server)
    net.run(5.0)
    assert not net.client.told("session_lost")
    asked = Counter(message(s) for s in net.captured["mb1"])
    assert asked[HEARTBEAT] > 8
    assert asked[ALIVE] == asked[HEARTBEAT]
    net.mb1.dead = True
    net.run(12.0)
    for host in (net.client, net.server):
        assert len(host.told("session_lost")) == 2
    net.emptied(net.client, net.server)


@pytest.mark.parametrize("kind", [HEARTBEAT, ALIVE], ids=["questions", "answers"])
def test_messages_that_get_lost_are_no_loss_of_the_session(net, kind):
    """Two of three: no host believes that the other is dead."""
    count = Counter()

    def lost(host, s):
        count[message(s)] += 1
        return message(s) == kind and count[kind] % 3 != 0

    hearts(net, net.client)
    net.lost = lost
    net.run(30.0)
    assert count[kind] > 20
    net.lost = lambda host, s: False
    net.quiet = False
    net.run(0.1)
    net.finish(net.pairs)


def test_a_neighbour_that_has_forgotten_the_session_says_so_at_once(net):
    hearts(net, net.client, net.server)
    for _, s in net.mb1.core.sessions():
        assert s
    assert net.mb1.core.expire(0.001, 0.001, 0.0)
    net.run(0.01)
    assert net.mb1.core.expire(0.001, 0.001, 0.0)  # the first pass notes, the second finds them silent, the third forgets
    net.run(0.01)
    assert net.mb1.core.expire(0.001, 0.001, 0.0)
    assert not net.mb1.sessions()
    net.run(2.0)
    assert len(net.client.told("session_lost")) == len(net.server.told("session_lost")) == 2
    net.emptied()


def test_heartbeats_while_a_reconfiguration_goes_on(net):
    """The chain is changed under those who ask: the neighbours are others from one question to the next."""
    hearts(net, net.client, net.mb1, net.mb2, net.server, seconds=0.3)
    for boxes in (["mb2"], ["mb1"], [], ["mb1", "mb2"]):
        for here, _ in net.pairs:
            net.client.begin(net.client.nonce(here), chain=boxes, until="server")
        net.run(4.0)
    assert [len(h.told("session_lost")) for h in (net.client, net.server)] == [0, 0]
    assert len(net.client.outcomes) == 8
    net.quiet = False
    net.run(0.1)
    net.finish(net.pairs)


# ---- anchors that die, chains that end ----


def test_the_lock_of_a_left_anchor_that_has_died_is_free_when_its_lease_has_run_out(world):
    client, mb1, _, _, server = world.chain("client", "mb1", "mb2", "mb3", "server")
    client.policies.add({**TO_SERVER, "chain": ["mb1", "mb2"]})
    pairs = world.talk(client, server)
    world.quiet = True
    nonce = client.nonce(pairs[0][0])
    world.lost = lambda host, s: message(s) == ACK_LOCK
    client.begin(nonce, until="server")
    world.run(0.01)
    world.lost = lambda host, s: message(s) != 0 and host is client  # its daemon says no more
    assert mb1.reconfigure(nonce, chain=["mb3"], until="server")[0] == "refused"
    world.run(2.5)
    assert mb1.reconfigure(nonce, chain=["mb3"], until="server") == ("done", "")
    world.lost = lambda host, s: False
    world.run(5.0)
    world.finish(pairs)


def test_a_right_anchor_that_has_left_the_chain_is_refused_by_its_end(net):
    nonce = net.client.nonce(net.pairs[0][0])
    assert net.client.reconfigure(nonce, until="mb2") == ("refused", "no_right_anchor")
    assert {s["lock"] for h in (net.client, net.mb1) for s in h.sessions().values()} == {0}
    net.finish(net.pairs)
