# SPDX-License-Identifier: Apache-2.0
"""A proxy leaves live sessions (paper III), and what is refused."""

import time

import pytest

from dysco_ns.agent.client import AgentRefused
from lab.measure import interface_packets
from lab.network import wait_until
from lab.shaping import QUEUE_MS
from lab.topologies.proxy import PROXY, proxy_port, server_port
from middleboxes.tcp_proxy import TcpProxy
from tests.net.conftest import no_session_was_reset, transfer
from tests.net.daemons import killed, started_again

PORTS = (proxy_port(1), server_port(1))


@pytest.fixture
def net(lab_of, tmp_path):
    """One pair through the proxy, unshaped: (lab, proxy)."""
    lab = lab_of("proxy", pairs=1, proxy_mbps=200, direct_mbps=200)
    proxy = TcpProxy({PORTS[0]: (lab.topology.host("server1").address, PORTS[1])}, tmp_path / "control")
    with lab.service(PROXY, proxy.command()):
        yield lab, proxy


def sessions(lab, host="client1"):
    return lab.agent(host).request("sessions")["sessions"]


def carry(lab, tmp_path, during, count=30, seconds=3.0):
    address = lab.topology.host(PROXY).address
    return transfer(lab, "client1", "server1", address, PORTS, tmp_path, sessions=count, seconds=seconds, during=during)


def gone(lab):
    return all("reconfiguring" not in s["state"] and s["right"].endswith(f"10.0.11.2:{PORTS[0]}") for s in sessions(lab))


def test_every_session_loses_the_proxy_without_losing_a_byte(net, tmp_path):
    lab, proxy = net
    seen = {}

    def leave():
        time.sleep(0.5)
        assert proxy.leave(PORTS[0])["spliced"] == 30
        wait_until(lambda: gone(lab), 20, "all sessions without the proxy")
        wait_until(lambda: proxy.counters()["open"] == 0, 10, "the proxy's sockets closed")
        time.sleep(2 * QUEUE_MS / 1000)  # messages overtake data: the last acknowledgments may still be in a queue
        seen["before"] = interface_packets(lab.pid(PROXY), "eth0")
        time.sleep(0.5)
        seen["after"] = interface_packets(lab.pid(PROXY), "eth0")

    compared = carry(lab, tmp_path, leave, seconds=8)
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (30, 0, 0), compared.reasons
    assert seen["before"] == seen["after"]
    assert no_session_was_reset(lab)


def test_removal_before_the_splice_is_refused_and_harms_nothing(net, tmp_path):
    lab, _ = net

    def ask():
        results = lab.agent("client1").request("reconfigure", all=True, remove=PROXY)["results"]
        assert len(results) == 30
        assert all(r["outcome"] == "refused" and "not joined" in r["reason"] for r in results)
        assert all(s["state"] == "established" and s["lock"] == "unlocked" for s in sessions(lab))

    assert carry(lab, tmp_path, ask).failed == 0
    assert no_session_was_reset(lab)


def test_command_at_the_client_after_a_join(net, tmp_path):
    lab, proxy = net

    def remove():
        time.sleep(0.5)  # until the proxy's own connections are up
        assert proxy.leave(PORTS[0], join_only=True)["spliced"] == 30
        results = lab.agent("client1").request("reconfigure", all=True, remove="proxy")["results"]
        assert [r["outcome"] for r in results] == ["done"] * 30
        assert all(r["reconfig_us"] > 0 for r in results)

    assert carry(lab, tmp_path, remove, seconds=4).failed == 0


@pytest.mark.parametrize(("request_", "why"), [({"session": "0123"}, "no session 0123"), ({"session": "xyz"}, "malformed"),
                                              ({"match": "tcp prt 5"}, "prt")])  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused_in_one_line(net, request_, why):
    with pytest.raises(AgentRefused, match=why) as refused:
        net[0].agent("client1").request("reconfigure", remove=PROXY, **request_)
    assert "\n" not in str(refused.value)


def test_an_unknown_middlebox_is_refused_by_name(net):
    with pytest.raises(AgentRefused, match="unknown host 'proxxy'"):
        net[0].agent("client1").request("reconfigure", all=True, remove="proxxy")


def test_sessions_survive_their_daemons_and_are_picked_up_again(net, tmp_path):
    lab, proxy = net

    def kill():
        for name in ("client1", "server1"):
            killed(lab, name)
        time.sleep(1.0)  # traffic goes on without them; carry() proves it
        for name in ("client1", "server1"):
            started_again(lab, name)
        assert len(sessions(lab)) == 30
        proxy.leave(PORTS[0])
        wait_until(lambda: gone(lab), 20, "all sessions without the proxy")

    compared = carry(lab, tmp_path, kill, seconds=6)
    assert (compared.failed, compared.bytes_mismatched) == (0, 0), compared.reasons
    assert no_session_was_reset(lab)
