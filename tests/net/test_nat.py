# SPDX-License-Identifier: Apache-2.0
"""Middleboxes with an agent that change the five-tuple (paper II-B): every kind of NAT that iptables has, where a session
begins, and while it lives."""

from dataclasses import replace

import pytest

from lab.topologies import Host, Policy, build
from middleboxes.tcp_proxy import TcpProxy
from tests.net.conftest import (
    counters,
    emptied,
    no_session_was_reset,
    nothing_was_invalid,
    reconfigured,
    sessions,
    talking,
    transfer,
)

long = pytest.mark.long
PORT = 5001
ENDS = ("client", "server")  # what a NAT leaves behind itself: test_a_nat_leaves_nothing
POOL, VIRTUAL = "10.0.1.77", "198.51.100.9"  # an address that a NAT gives; one that only a NAT knows


def nat(lab, host, chain, *words):
    lab.run(host, ["iptables", "-t", "nat", "-A", chain, "-p", "tcp", *words])


def masquerade(lab, host):
    nat(lab, host, "POSTROUTING", "-j", "MASQUERADE")


def snat(lab, host):
    """To an address of a pool, which is no interface's."""
    nat(lab, host, "POSTROUTING", "-j", "SNAT", "--to-source", POOL)


def snat_ports(lab, host):
    """To few ports of the host's own address."""
    nat(lab, host, "POSTROUTING", "-j", "SNAT", "--to-source", f"{lab.topology.host(host).address}:47000-47099")


SOURCES = {"masquerade": masquerade, "snat": snat, "snat to ports": snat_ports}


def to_virtual(lab):
    """The client's sessions to the virtual address get a chain too."""
    lab.agent("client").request("policy_add", filter=f"tcp and dst host {VIRTUAL}", chain=["mb1"])


@pytest.mark.parametrize("kind", ["snat", *(pytest.param(kind, marks=long) for kind in ("masquerade", "snat to ports"))])
def test_the_source_is_changed_in_the_chain(lab_of, tmp_path, kind):
    """... and the middlebox leaves, another takes its place, and comes back, while the sessions live."""
    lab = lab_of("chain", middleboxes=2, kind="router", initial=1, hmac="on", rate=200)
    for box in ("mb1", "mb2"):
        SOURCES[kind](lab, box)
    seen = []

    def steps():
        seen.extend(s["tuple"] for s in sessions(lab, "server"))
        reconfigured(lab, "client", replace={"mb1": ["mb2"]})
        reconfigured(lab, "client", remove="mb2")
        reconfigured(lab, "client", insert=["mb1"])

    server = lab.topology.host("server").address
    compared = transfer(lab, "client", "server", server, (PORT, PORT), tmp_path, during=steps)
    assert (compared.sessions, compared.clean) == (10, True), compared.reasons
    source = POOL if kind == "snat" else lab.topology.host("mb1").address
    assert {t.split(":")[0] for t in seen} == {source}
    assert no_session_was_reset(lab)
    emptied(lab, at=ENDS)


@pytest.mark.parametrize("to_port", [6001, pytest.param(PORT, marks=long)])
def test_the_destination_is_changed_in_the_chain(lab_of, tmp_path, to_port):
    """A virtual address that only the middlebox knows; the port as well."""
    lab = lab_of("chain", middleboxes=2, initial=0, kind="firewall", hmac="on", rate=200)
    server = lab.topology.host("server").address
    nat(lab, "mb1", "PREROUTING", "-d", VIRTUAL, "-j", "DNAT", "--to-destination", f"{server}:{to_port}")
    to_virtual(lab)

    def steps():
        assert {s["tuple"].split(" > ")[1] for s in sessions(lab, "server")} == {f"{server}:{to_port}"}
        reconfigured(lab, "client", insert=["mb2"])
        reconfigured(lab, "mb2", remove="mb1")
        reconfigured(lab, "client", replace={"mb2": ["mb1"]})

    compared = transfer(lab, "client", "server", VIRTUAL, (PORT, to_port), tmp_path, during=steps)
    assert (compared.sessions, compared.clean) == (10, True), compared.reasons
    assert no_session_was_reset(lab)
    assert nothing_was_invalid(lab)
    emptied(lab, at=ENDS)


@long
def test_the_server_itself_redirects(lab_of, tmp_path):
    """REDIRECT at the end of the chain: the session is the one that the client has opened."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", hmac="on", rate=200)
    nat(lab, "server", "PREROUTING", "--dport", str(PORT), "-j", "REDIRECT", "--to-ports", "6001")
    server = lab.topology.host("server").address
    compared = transfer(lab, "client", "server", server, (PORT, 6001), tmp_path,
                        during=lambda: reconfigured(lab, "client", replace={"mb1": ["mb2"]}))  # fmt: skip
    assert (compared.sessions, compared.clean) == (10, True), compared.reasons
    assert no_session_was_reset(lab)
    assert nothing_was_invalid(lab)
    emptied(lab, at=ENDS)


@long
def test_a_transparent_proxy_gets_sessions_by_redirection(lab_of, tmp_path):
    """REDIRECT in a middlebox: the client's session ends there, though it was meant for the server."""
    lab = lab_of("chain", middleboxes=2, initial=1, hmac="on", rate=200)
    server = lab.topology.host("server").address
    nat(lab, "mb1", "PREROUTING", "--dport", str(PORT), "-j", "REDIRECT", "--to-ports", "8001")
    lab.agent("mb1").request("policy_add", filter="tcp dst port 9001", chain=["mb2"])
    proxy = TcpProxy({8001: (server, 9001)}, tmp_path / "control")
    with lab.service("mb1", proxy.command()):
        compared = transfer(lab, "client", "server", server, (PORT, 9001), tmp_path,
                            during=lambda: reconfigured(lab, "mb1", remove="mb2"))  # fmt: skip
    assert (compared.sessions, compared.clean) == (10, True), compared.reasons
    assert counters(lab, "server")["session_joined"] == 10
    assert no_session_was_reset(lab)
    emptied(lab, at=ENDS)


@long
@pytest.mark.parametrize("kind", ["masquerade", "snat"])
def test_two_clients_that_use_the_same_source_port(lab_of, tmp_path, kind):
    """A NAT with an agent gives one of them another port; both are reconfigured, and nobody gets the other's bytes."""
    topology = build("chain", {"middleboxes": "2", "initial": "1", "hmac": "on", "rate": "200"})
    second = replace(topology.host("client"), name="client2", index=9)
    topology = replace(topology, hosts=(*topology.hosts, second),
                       policies=(*topology.policies, replace(topology.policies[0], at="client2")))  # fmt: skip
    lab = lab_of(topology)
    SOURCES[kind](lab, "mb1")
    with talking(lab, tmp_path, clients=("client", "client2"), sessions=5, from_port=45000) as talk:
        assert len({s["tuple"].split(" > ")[0] for s in sessions(lab, "server")}) == 10
        for client in ("client", "client2"):
            reconfigured(lab, client, replace={"mb1": ["mb2"]})
            reconfigured(lab, client, remove="mb2")
            reconfigured(lab, client, insert=["mb1"])
    assert (talk.compared.sessions, talk.compared.clean) == (10, True), talk.compared.reasons
    assert no_session_was_reset(lab)
    emptied(lab, at=ENDS)


@long
def test_a_nat_leaves_nothing(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, kind="nat")
    server = lab.topology.host("server").address
    assert transfer(lab, "client", "server", server, (PORT, PORT), tmp_path, seconds=0.5).clean
    emptied(lab)


# ---- port forwarding by a router that has no agent ----


def behind_forwarding(lab_of, name, **settings):
    """A chain in which a host can be reached only by what comes to port 5001 of a router before it, "gate"."""
    topology = build("chain", {"kind": "firewall", "hmac": "on", "rate": "200", **settings})
    gate = Host("gate", 9, "router", 200, agent=False)
    hosts = tuple(replace(host, behind="gate") if host.name == name else host for host in topology.hosts)
    chain = tuple("gate" if box == name else box for box in topology.policies[0].chain)
    to = gate.address if name == "server" else topology.host("server").address
    policy = Policy("client", f"tcp dst port {PORT} and dst host {to}", chain)
    lab = lab_of(replace(topology, hosts=(*hosts, gate), policies=(policy,)))
    nat(lab, "gate", "PREROUTING", "-d", gate.address, "--dport", str(PORT), "-j", "DNAT", "--to-destination",
        topology.host(name).address)  # fmt: skip
    new = ["-A", "FORWARD", "-i", "eth0", "-p", "tcp", "-m", "conntrack", "--ctstate", "NEW"]
    lab.run("gate", ["iptables", *new, "-m", "conntrack", "!", "--ctstate", "DNAT", "-j", "DROP"])
    return lab, gate.address


def test_a_server_behind_port_forwarding_is_a_right_anchor(lab_of, tmp_path):
    """All that its left side has of it is an address and a port; every new path comes in by those."""
    lab, address = behind_forwarding(lab_of, "server", middleboxes="2", initial="1")
    with talking(lab, tmp_path, address=address) as talk:
        reconfigured(lab, "client", replace={"mb1": ["mb2"]})
        reconfigured(lab, "client", remove="mb2")
        reconfigured(lab, "client", insert=["mb1"])
    assert (talk.compared.sessions, talk.compared.clean) == (10, True), talk.compared.reasons
    assert no_session_was_reset(lab)
    assert nothing_was_invalid(lab)
    emptied(lab)


@long
def test_past_a_middlebox_behind_port_forwarding_there_is_no_way(lab_of, tmp_path):
    """To go past it is refused and the line says why; up to it, and to the right of it, all is as ever."""
    lab, gate = behind_forwarding(lab_of, "mb1", middleboxes="3", initial="1")
    with talking(lab, tmp_path) as talk:
        for change in ({"remove": gate}, {"chain": ["mb2"], "until": lab.topology.host("server").address}):
            results = lab.agent("client").request("reconfigure", all=True, **change)["results"]
            assert {(r["outcome"], r["retry"]) for r in results} == {("refused", False)}, results
            assert all("port forwarding lies on the way" in r["reason"] for r in results)
        reconfigured(lab, "client", insert=["mb2"])
        reconfigured(lab, "mb1", insert=["mb3"])
    assert (talk.compared.sessions, talk.compared.clean) == (10, True), talk.compared.reasons
    assert no_session_was_reset(lab)
    assert nothing_was_invalid(lab)
    emptied(lab)
