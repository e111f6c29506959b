# SPDX-License-Identifier: Apache-2.0
"""Seeds for the targets of real captures: python -m tests.fuzz.record DIRECTORY (as root; two minutes).

Labs are set up, reconfigured and torn down while tcpdump looks at every host with an agent; what it has seen becomes an
input of host.c and of dpdk.c for each host.  `python -m tests.fuzz --merge DIRECTORY` puts of them into the corpus what covers
something new (libFuzzer's -merge=1).
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dysco_ns.agent.filters import compile_filter
from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT
from lab.capture import LOOK, capturing, capturing_stack
from lab.network import ROUTER, Lab, wait_until
from lab.topologies import build
from lab.topologies.proxy import PROXY, proxy_port, server_port
from middleboxes.tcp_proxy import TcpProxy
from tests.fuzz.records import Host, Seen, frames_of, port_records, program, records
from tests.net.conftest import sessions, settled, talking

SLOW = {"sessions": 1, "message": 40, "every_us": 100_000, "seconds": 2}
FILTERS = (
    "tcp dst portrange 5001-5010 and dst host 10.0.2.2",
    "src net 10.0.0.0/24 and tcp[tcpflags] & tcp-syn != 0",
    "tcp[13] % 2 = 0 or ip[8] > 32",
    "(tcp[2:2] * 3 - ip[2:2] << 1) & 0xff != 7 or len > 74",
    "tcp port 80 and not host 10.0.0.2 or ether[40:4] = 3",
)


def devices(lab: Lab, host: str) -> dict[str, bytes]:
    """Interfaces of a host, and their MACs."""
    links = json.loads(lab.run(host, ["ip", "-json", "link"]))
    return {x["ifname"]: bytes.fromhex(x["address"].replace(":", "")) for x in links if x["ifname"].startswith(("eth0", "to-"))}


@contextmanager
def captured(lab: Lab, name: str, to: Path, work: Path) -> Iterator[None]:
    """What a host sees while the block lasts becomes a file of records; the name of `to` is that of the scene."""
    ends = lab.topology.host(name).kind == "host"
    macs = devices(lab, name)
    files = {device: work / f"{name}-{device}.pcap" for device in macs}
    found = sorted((i["name"], i["address"]) for i in lab.agent(name).request("ping")["interfaces"] if i["name"] != LOOK)
    own = [address for _, address in found]  # eth0 first: the host library sends by the first
    stack_file = work / f"{name}-stack.pcap"
    with ExitStack() as stack:
        for device, file in files.items():
            stack.enter_context(capturing(lab, name, device, file, "tcp or icmp"))
        if ends:
            stack.enter_context(capturing_stack(lab, name, stack_file))
        yield
    seen = [Seen(t, "out" if frame[6:12] in macs.values() else "in", frame)
            for file in files.values() for t, frame in frames_of(file)]  # fmt: skip
    seen += [Seen(t, "stack", frame) for t, frame in frames_of(stack_file)] if ends else []
    policies = [p for p in lab.topology.policies if p.at == name]
    names = lab.topology.names
    chains = [([names[m] for m in p.chain], names.get(p.ends_at)) for p in policies]
    host = Host(tuple(own), chains, lab.key_file() if lab.topology.sign else None, tags="tag" in to.name)
    seen.sort(key=lambda s: s.time_s)
    file = f"{to.name}-{name}".replace(" ", "-")
    (to.parent / "host" / file).write_bytes(records(host, seen))
    (to.parent / "dpdk" / file).write_bytes(port_records(host, seen, Btf(OBJECT)))


@contextmanager
def watched(lab: Lab, to: Path) -> Iterator[Path]:
    """All agents' hosts are captured while the block lasts; gives a directory to work in."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        for name in lab.state.agents:
            stack.enter_context(captured(lab, name, to, Path(directory)))
        yield Path(directory)


def change(lab: Lab, host: str, **what: object) -> None:
    lab.agent(host).request("reconfigure", all=True, timeout_s=20, **what)
    with contextlib.suppress(AssertionError):
        settled(lab)


def chain(to: Path, steps: Callable[[Lab], None], message: int = SLOW["message"], **settings: object) -> None:
    """A session through a chain, to which something happens."""
    with Lab(build("chain", {key: str(value) for key, value in settings.items()})) as lab, watched(lab, to) as work:
        with talking(lab, work, **SLOW | {"message": message}):
            time.sleep(0.4)
            steps(lab)
        time.sleep(0.2)


def comes_and_goes(lab: Lab) -> None:
    change(lab, "client", insert=["mb2"])
    change(lab, "mb2", remove="mb1")
    change(lab, "client", replace={"mb2": ["mb1"]})


def edges(lab: Lab) -> None:
    change(lab, "mb1", insert=["mb2"])
    change(lab, "edge1", remove="mb1")


def narrow(lab: Lab) -> None:
    """Segments no longer fit where the last link begins: its router says so to who has sent them."""
    lab.run(ROUTER, ["ip", "link", "set", "to-server", "mtu", "1000"])
    time.sleep(0.6)
    change(lab, "client", remove="mb1")


def tagged(lab: Lab) -> None:
    lab.agent("mb1").request("tune", tag="option", throttle=4096, heartbeat_s=0.2)
    lab.run("client", ["timeout", "1", "bash", "-c", f"echo x > /dev/tcp/{lab.topology.host('server').address}/5001"])
    lab.agent("mb1").request("leave", all=True)
    settled(lab)


def refused(lab: Lab) -> None:
    """The right anchor's agent is away: locks are not answered, the attempt is cancelled."""
    lab.stop_agent("server")
    with contextlib.suppress(Exception):
        lab.agent("client").request("reconfigure", all=True, remove="mb1", timeout_s=1)


def proxy(to: Path, hmac: str) -> None:
    with Lab(build("proxy", {"pairs": "1", "hmac": hmac})) as lab, watched(lab, to) as work:
        relay = TcpProxy({proxy_port(1): (lab.topology.host("server1").address, server_port(1))}, work / "control")
        address, ports = lab.topology.host(PROXY).address, (proxy_port(1), server_port(1))
        with (
            lab.service(PROXY, relay.command()),
            talking(lab, work, clients=("client1",), server="server1", address=address, port=ports, **SLOW),
        ):
            time.sleep(0.6)
            relay.leave(proxy_port(1))
            wait_until(lambda: all("reconfiguring" not in s["state"] for s in sessions(lab, "client1")), 20, "settled")


SCENES: dict[str, Callable[[Path], None]] = {
    "plain": lambda to: chain(to, comes_and_goes, middleboxes=2, initial=1),
    "signed": lambda to: chain(to, comes_and_goes, middleboxes=2, initial=1, hmac="on", kind="firewall"),
    "nat": lambda to: chain(to, lambda lab: change(lab, "client", remove="mb1"), middleboxes=1, gate="nat"),
    "nat on the chain": lambda to: chain(to, tagged, middleboxes=1, kind="nat"),
    "tags": lambda to: chain(to, tagged, middleboxes=1),
    "edges": lambda to: chain(to, edges, middleboxes=2, initial=1, edges="on"),
    "icmp": lambda to: chain(to, narrow, message=1300, middleboxes=1),
    "refused": lambda to: chain(to, refused, middleboxes=1, hmac="on"),
    "proxy": lambda to: proxy(to, "off"),
    "signed proxy": lambda to: proxy(to, "on"),
}


# What filters are tried on: a SYN as Linux writes it.
SEGMENT = bytes(12) + bytes.fromhex(
    "0800" "4500003c1234400040060000" "0a000002" "0a000202" "9c401389" "00000001" "00000000" "a002faf000000000"
    "020405b40402080a00000001000000000103030a")  # fmt: skip
ANSWERS = (
    {"ok": True, "session": "00000000000000a1", "peer": "00000000000000b2"},
    {"ok": False, "error": "the 'in' socket's session is not a Dysco session", "retry": False},
    {"ok": False, "error": "locked", "retry": True, "joined": True},
    {},
)


def main() -> int:
    to = Path(sys.argv[1] if len(sys.argv) > 1 else "build/fuzz/seeds")
    for target in ("host", "filter", "splice", "dpdk"):
        (to / target).mkdir(parents=True, exist_ok=True)
    for i, expression in enumerate(FILTERS):
        (to / "filter" / f"filter-{i}").write_bytes(program(compile_filter(expression), SEGMENT))
    for i, answer in enumerate(ANSWERS):
        (to / "splice" / f"answer-{i}").write_text(json.dumps(answer) + "\n")
    for name in sys.argv[2:] or SCENES:
        print(f"{name} ...", flush=True)
        SCENES[name](to / name)
    print(f"{sum(1 for _ in to.glob('*/*'))} seeds in {to}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
