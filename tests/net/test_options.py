# SPDX-License-Identifier: Apache-2.0
"""Sessions that have not negotiated what most have: reconfigured all the same (paper III-E)."""

import time

import pytest

from middleboxes.tcp_proxy import TcpProxy
from tests.net.conftest import no_session_was_reset, transfer
from tests.net.test_reconfigure import changed, flat, verified

WITHOUT = {
    "timestamps": {"net.ipv4.tcp_timestamps": "0"},
    "SACK": {"net.ipv4.tcp_sack": "0"},
    "timestamps and SACK": {"net.ipv4.tcp_timestamps": "0", "net.ipv4.tcp_sack": "0"},
    "window scaling": {"net.ipv4.tcp_window_scaling": "0"},
    "a large window": {"net.ipv4.tcp_rmem": "4096 20000 30000"},
}


LONG, USUAL = pytest.mark.long, ("timestamps", "SACK")


@pytest.mark.parametrize(
    "where", [["client"], pytest.param(["server"], marks=LONG), pytest.param(["client", "server"], marks=LONG)]
)
@pytest.mark.parametrize("what", [w if w in USUAL else pytest.param(w, marks=LONG) for w in WITHOUT])
def test_sessions_without(lab_of, tmp_path, what, where):
    """A strict firewall comes, another takes its place, and leaves."""
    lab = lab_of("chain", middleboxes=2, initial=0, kind="firewall", rate=200, hmac="on")
    for host in where:
        lab.sysctl(host, WITHOUT[what])

    def steps():
        time.sleep(0.3)
        changed(lab, "client", insert=["mb1"])
        assert not flat(lab, "mb1")
        changed(lab, "client", replace={"mb1": ["mb2"]})
        changed(lab, "client", remove="mb2")
        assert flat(lab, "mb2")

    verified(lab, tmp_path, steps, wires=("client",), stacks=("client", "server"))


UNEQUAL = {
    "segments, client": ("client", ["ip", "route", "change", "default", "via", "10.0.0.1", "advmss", "700"]),
    "segments, server": ("server", ["ip", "route", "change", "default", "via", "10.0.3.1", "advmss", "700"]),
    "scales, client": ("client", ["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 131072 134217728"]),
    "scales, server": ("server", ["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 131072 134217728"]),
}


@pytest.mark.parametrize("what", [w if w == "segments, client" else pytest.param(w, marks=LONG) for w in UNEQUAL])
def test_the_two_ends_offer_unequal(lab_of, tmp_path, what):
    """Segments of 700 bytes one way and 1460 the other; windows in other units than the other end's."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", rate=200)
    host, command = UNEQUAL[what]
    lab.run(host, command)

    def steps():
        time.sleep(0.3)
        changed(lab, "client", replace={"mb1": ["mb2"]})
        changed(lab, "client", chain=["mb1"], until="server")

    verified(lab, tmp_path, steps, wires=("server",), stacks=("client", "server"))


def test_a_host_with_a_smaller_mtu(lab_of, tmp_path):
    """The server's link is narrower than the client's, and its offer of a segment size says so."""
    lab = lab_of("chain", middleboxes=2, initial=1, rate=200)
    lab.run("server", ["ip", "link", "set", "eth0", "mtu", "1200"])

    def steps():
        time.sleep(0.3)
        changed(lab, "client", replace={"mb1": ["mb2"]})

    verified(lab, tmp_path, steps)


@pytest.mark.parametrize(("router", "leads"), [("edge2", "edge1"), pytest.param("gate", "client", marks=LONG)])
def test_a_link_with_a_smaller_mtu_on_the_way(lab_of, tmp_path, router, leads):
    """Routers can only say so to the agent whose subsession it is; the host whose stack is at fault hears of its session."""
    lab = lab_of("chain", middleboxes=2, initial=1, rate=200, **{"edges" if router == "edge2" else "gate": "on"})
    lab.run(router, ["ip", "link", "set", "eth0", "mtu", "1200"])
    lab.run("r0", ["ip", "link", "set", f"to-{router}", "mtu", "1200"])

    def steps():
        time.sleep(0.5)
        changed(lab, leads, replace={"mb1": ["mb2"]})
        time.sleep(0.5)

    assert verified(lab, tmp_path, steps).bytes_compared > 5e6
    translated = [h for h in lab.state.agents if lab.agent(h).request("stats")["counters"].get("icmp_translated")]
    assert len(translated) > 1, translated


@pytest.mark.parametrize("side", ["both", "one"])
def test_a_proxy_whose_sessions_have_no_timestamps(lab_of, tmp_path, side):
    """It leaves if neither has them; if one has, its peer could not be echoed, and the refusal says so."""
    lab = lab_of("chain", middleboxes=1, initial=0)
    server, box = (lab.topology.host(h).address for h in ("server", "mb1"))
    lab.agent("client").request("policy_add", filter="tcp dst port 8001", chain=[])
    lab.agent("mb1").request("policy_add", filter="tcp dst port 9001", chain=[])
    for host in ("client", "server") if side == "both" else ("client",):
        lab.sysctl(host, {"net.ipv4.tcp_timestamps": "0"})
    proxy = TcpProxy({8001: (server, 9001)}, tmp_path / "control")

    def leave():
        assert proxy.leave(8001, join_only=True)["spliced"] == 10
        live = [s["id"] for s in lab.agent("client").request("sessions")["sessions"] if s["state"] == "established"]
        results = [lab.agent("client").request("reconfigure", session=i, remove="mb1")["results"][0] for i in live]
        assert {r["outcome"] for r in results} == {"done" if side == "both" else "refused"}, results
        assert side == "both" or "different timestamps" in results[0]["reason"]

    with lab.service("mb1", proxy.command()):
        compared = transfer(lab, "client", "server", box, (8001, 9001), tmp_path, seconds=3, during=leave)
    assert (compared.sessions, compared.failed, compared.bytes_mismatched) == (10, 0, 0)
    assert no_session_was_reset(lab)
