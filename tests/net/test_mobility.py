# SPDX-License-Identifier: Apache-2.0
"""Hosts with several addresses: each direction by another interface, and sessions that move to another address."""

import time

import pytest

from dysco_ns.agent.client import AgentRefused
from lab.measure import interface_packets
from lab.network import wait_until
from lab.topologies import ROUTER
from tests.net.conftest import device, no_session_was_reset, transfer
from tests.net.test_reconfigure import carried, dysco
from tests.net.watch import watched

PORT = 5001
SECOND = "10.0.100"


def second_link(lab, host):
    """Gives a host a second interface, with an address of its own that is used for what comes from it."""
    peer = f"link add eth1 netns {lab.pid(host)} type veth peer name second netns {lab.pid(ROUTER)}"
    lab.run(host, ["ip", *peer.split()])
    lab.batch(ROUTER, ["link set second up", f"address add {SECOND}.1/24 dev second"])
    lab.batch(host, ["link set eth1 up", f"address add {SECOND}.2/24 dev eth1", f"rule add from {SECOND}.2 lookup 100",
                     f"route add default via {SECOND}.1 dev eth1 table 100"])  # fmt: skip
    expected = {"name": device(lab, host, "eth1"), "address": f"{SECOND}.2"}
    wait_until(lambda: expected in lab.agent(host).request("ping")["interfaces"], 10, "second address")


def drop_first(lab, host):
    """The first address goes from its interface; sockets that have it find it on loopback."""
    address = lab.topology.host(host).address
    first, second = device(lab, host, "eth0"), device(lab, host, "eth1")
    lab.batch(host, [f"address add {address}/32 dev lo", f"route replace default via {SECOND}.1 dev {second}",
                     f"address del {address}/24 dev {first}", f"link set {first} down"])  # fmt: skip


@pytest.mark.parametrize("host", ["client", "server"])
@pytest.mark.parametrize("middleboxes", [0, pytest.param(1, marks=pytest.mark.long)])
def test_an_end_host_moves_its_sessions_and_drops_the_old_address(lab_of, tmp_path, host, middleboxes):
    lab = lab_of("chain", middleboxes=middleboxes, rate=200, hmac="on")
    second_link(lab, host)
    first = lab.topology.host(host).address
    moved = []

    def move():
        moved.extend(lab.agent(host).request("move", **{"from": first, "to": f"{SECOND}.2"})["results"])
        drop_first(lab, host)

    other = "server" if host == "client" else "client"
    with watched(lab, tmp_path, wires=(other,) if not middleboxes else (), stacks=("client", "server")):
        compared = transfer(
            lab, "client", "server", lab.topology.host("server").address, (PORT, PORT), tmp_path, seconds=3, during=move
        )
    assert [r["outcome"] for r in moved] == ["done"] * 10, moved
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    assert sum(interface_packets(lab.pid(host), "eth1")) > 5000
    assert no_session_was_reset(lab)


def test_after_a_move_the_session_is_reconfigured_like_any_other(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, initial=0, rate=200)
    second_link(lab, "client")
    first, said = lab.topology.host("client").address, []

    def move():
        said.append(dysco("move", "--from", first, "--to", f"{SECOND}.2", "--at", "client"))
        drop_first(lab, "client")
        said.append(dysco("reconfigure", "--at", "server", "--all", "--insert", "mb1", "--after", "client"))
        assert carried(lab, "mb1") > 0
        said.append(dysco("reconfigure", "--at", "server", "--all", "--remove", "mb1"))

    compared = transfer(
        lab, "client", "server", lab.topology.host("server").address, (PORT, PORT), tmp_path, seconds=5, during=move
    )
    assert [status for status, _, _ in said] == [0, 0, 0], said
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    assert no_session_was_reset(lab)


@pytest.mark.parametrize("host", ["client", *(pytest.param(h, marks=pytest.mark.long) for h in ("server", "mb1"))])
def test_each_direction_may_use_an_interface_of_its_own(lab_of, tmp_path, host):
    """What the host sends leaves by its second interface; what it gets comes by the first."""
    lab = lab_of("chain", middleboxes=2, initial=1, rate=200)
    second_link(lab, host)
    lab.batch(host, [f"route replace default via {SECOND}.1 dev {device(lab, host, 'eth1')}"])
    before = interface_packets(lab.pid(host), "eth1")[1]

    def change():
        time.sleep(0.5)
        results = lab.agent("client").request("reconfigure", all=True, replace={"mb1": ["mb2"]})["results"]
        assert [r["outcome"] for r in results] == ["done"] * 10, results

    compared = transfer(
        lab, "client", "server", lab.topology.host("server").address, (PORT, PORT), tmp_path, seconds=2, during=change
    )
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    assert interface_packets(lab.pid(host), "eth1")[1] - before > 100
    assert no_session_was_reset(lab)


def test_a_move_that_cannot_be(lab_of):
    lab = lab_of("chain", middleboxes=0)
    first = lab.topology.host("client").address
    with pytest.raises(AgentRefused, match="192.0.2.7 is not an address of this host: it has " + first):
        lab.agent("client").request("move", **{"from": first, "to": "192.0.2.7"})
    status, _, why = dysco("move", "--from", first, "--to", first, "--at", "client")
    assert (status, why) == (1, f"dysco: no session of this host uses {first}\n")
