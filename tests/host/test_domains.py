# SPDX-License-Identifier: Apache-2.0
"""Domains with keys of their own (paper II-E): each message is signed with the key of who receives it, and keys are rotated.
The judge of signatures is Python's hmac."""

import hmac

import pytest

TO_SERVER = {"filter": "tcp dst port 5001"}
WEST, EAST = b"west" * 6, b"east" * 6


@pytest.fixture
def net(world):
    """client and mb1 share one key, mb2 and server another; mb1 has both, and so has mb3."""
    east = {f"10.0.{i}.2/32": EAST for i in (2, 4)}
    world.client, world.mb1 = world.add("client", key=WEST), world.add("mb1", key=WEST, domains=east)
    world.mb2, world.mb3 = world.add("mb2", key=EAST), world.add("mb3", key=WEST, domains=east)
    world.server = world.add("server", key=EAST)
    assert world.names["mb2"], world.names["server"] == ("10.0.2.2", "10.0.4.2")
    world.client.policies.add({**TO_SERVER, "chain": ["mb1", "mb2"]})
    return world


def keys_used(world, keys):
    """Sender and receiver of all signalling so far, with the names of the keys by which it is right."""
    found = set()
    for name, host in world.hosts.items():
        for s in world.captured[name]:
            message = s.payload[: int.from_bytes(s.payload[4:6], "big")] if s.payload.startswith(b"DY\x14") else b""
            if message and s.dst[0] in host.addresses:
                right = (k for k, key in keys.items() if hmac.digest(key, message, "sha256") == s.payload[len(message) :])
                found.add((world.addresses[s.src[0]].name, name, *right))
    return found


def refused(host):
    """What a host has dropped and has a reason to."""
    return {name for name in host.counters if name.startswith("drop")} - {"drop_tombstone"}


def test_each_message_is_signed_for_who_receives_it(net):
    pairs = net.talk(net.client, net.server, count=2)
    for here, _ in pairs:
        nonce = net.client.nonce(here)
        assert net.mb1.reconfigure(nonce, until="server") == ("done", "")
        net.run(0.2)
        assert net.mb1.reconfigure(nonce, chain=["mb2"], until="server") == ("done", "")
        net.run(0.2)
        assert net.client.reconfigure(nonce, chain=["mb3"], until="mb2") == ("done", "")  # across the border, from beyond it
        net.run(0.2)
    used = keys_used(net, {"west": WEST, "east": EAST})
    assert len(used) >= 8
    assert used == {(a, b, "east" if {a, b} & {"mb2", "server"} else "west") for a, b, *_ in used}
    assert [refused(host) for host in net.hosts.values()] == [set()] * 5
    net.finish(pairs)


def test_who_has_another_key_is_nobody(net):
    """The client does not know the key of mb2: a chain that leads there directly fails, and leaves nothing there."""
    net.client.policies.apply([{**TO_SERVER, "chain": ["mb2"]}])
    socket = net.client.connect(net.server.addresses[0])
    net.run_until(lambda: socket.reset, 20)
    assert set(net.mb2.counters) == {"drop_bad_signature"}
    assert [e.value for e in net.client.told("no_agent")]


def test_a_reconfiguration_to_who_has_another_key_is_cancelled(net):
    pairs = net.talk(net.client, net.server)
    nonce = net.client.nonce(pairs[0][0])
    assert net.client.reconfigure(nonce, until="server") == ("cancelled", "timeout")  # its SYN there has the wrong key
    assert net.server.counters["drop_bad_signature"] > 1
    assert net.client.reconfigure(nonce, chain=["mb3"], until="server") == ("done", "")  # by who has both it goes
    net.run(0.2)
    net.finish(pairs, allowed=("reset",))


def test_the_keys_of_a_domain_are_rotated_while_sessions_are_changed(net, tmp_path):
    pairs, files = net.talk(net.client, net.server), []
    nonce = net.client.nonce(pairs[0][0])
    for i in (1, 2):
        files.append(tmp_path / f"key{i}")
        files[-1].write_text(f"{i}" * 20)
        files[-1].chmod(0o600)

    def everywhere(what, *words):
        for host in (net.mb2, net.server):
            getattr(host.domains, what)(None, *words)
            host.configure()
        for host in (net.mb1, net.mb3):
            for network in ("10.0.2.2/32", "10.0.4.2/32"):
                getattr(host.domains, what)(network, *words)
            host.configure()

    def change():
        assert net.mb1.reconfigure(nonce, until="server") == ("done", "")
        net.run(0.2)
        assert net.mb1.reconfigure(nonce, chain=["mb2"], until="server") == ("done", "")
        net.run(0.2)

    for number, file in enumerate(files, 1):
        everywhere("set_key", number, file, False)
        change()
        everywhere("set_key", number, file, True)
        change()
        everywhere("drop_key", number - 1)
        change()
    assert [refused(host) for host in net.hosts.values()] == [set()] * 5
    keys = {"east": EAST, "1": b"1" * 20, "2": b"2" * 20, "west": WEST}
    assert {key for _, name, *which in keys_used(net, keys) for key in which if name == "server"} == {"east", "1", "2"}
    net.finish(pairs)
