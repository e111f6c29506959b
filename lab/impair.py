# SPDX-License-Identifier: Apache-2.0
"""Networks that lose, repeat and reorder packets, on kernels without netem: netfilter at the router chooses, a longline
makes late.  A packet is what the router forwards: a GSO super-packet is lost whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lab.faults import rule
from lab.network import Lab
from lab.tools.longline import TABLE, delayed
from lab.topologies import ROUTER

LATE_MARK = "0x1a7e"
RIGHTWARD, LEFTWARD = "--sport 20000:26383", "--dport 20000:26383"  # of subsessions (docs/wire-format.md)
BARE = "-m length --length 40:80"
PAYLOAD = "0>>22&0x3C@12>>26&0x3C@0"  # the first word after the TCP header, in the words of xt_u32
ACK_ALONE = "--tcp-flags SYN,ACK,FIN,RST ACK"

# What a rule matches, by the message's name in docs/protocol.md; handshakes of new paths once the sessions are up.
MESSAGES = {
    **{
        name: f"-m u32 --u32 {PAYLOAD}=0x445914{number:02x}"
        for number, name in enumerate(
            ("requestLock", "ackLock", "nackLock", "release", "ackRelease", "cancel", "ackCancel", "trigger", "heartbeat",
             "alive"), 2)
    },
    "new path SYN": f"-m u32 --u32 {PAYLOAD}=0x44591401",
    "new path SYN-ACK": f"--tcp-flags SYN,ACK SYN,ACK {BARE} {LEFTWARD}",
    "left ACK": f"{ACK_ALONE} {BARE} {RIGHTWARD}",
    "right ACK": f"{ACK_ALONE} {BARE} {LEFTWARD}",
}  # fmt: skip
ONCE = ("-m hashlimit --hashlimit-name {name} --hashlimit-upto 1/hour --hashlimit-burst 1 "
        "--hashlimit-mode srcip,srcport,dstip,dstport --hashlimit-htable-expire 600000")  # fmt: skip


def first_of_each(name: str) -> list[str]:
    """Of what else a rule matches, only the first packet of each five-tuple.  `name`: of the kernel's table."""
    return ONCE.format(name=re.sub("[^a-zA-Z]", "", name)[:14]).split()


@contextmanager
def lost(lab: Lab, message: str, once: bool = True, at: str = "") -> Iterator[None]:
    """Messages of one kind get lost at the router: the first on each subsession, at each hop, or (once=False) all of them.
    `at`: more words of a netfilter rule, such as '-s ADDRESS'."""
    match = [*at.split(), *MESSAGES[message].split(), *(first_of_each(message) if once else ())]
    with rule(lab, ROUTER, "PREROUTING", ["-p", "tcp", *match, "-j", "DROP"], "raw"):
        yield


def packets_lost(lab: Lab) -> int:
    """How many packets the rules in force have dropped at the router."""
    listed = lab.run(ROUTER, ["iptables", "-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n"])
    return sum(int(n) for n in re.findall(r"^\s*(\d+)\s+\d+\s+DROP", listed, re.M))


def _sometimes(share: float) -> list[str]:
    return ["-p", "tcp", "-i", "to-+", "-m", "statistic", "--mode", "random", "--probability", f"{share:g}"]


@contextmanager
def impaired(lab: Lab, loss: float = 0.0, repeated: float = 0.0, late: float = 0.0, late_ms: float = 4.0) -> Iterator[None]:
    """At the router, these shares of all packets get lost, come twice, or come so much later than those behind them."""
    with ExitStack() as stack:
        if late:
            stack.enter_context(delayed(lab, ROUTER, (), late_ms))
            lab.batch(ROUTER, [f"rule add fwmark {LATE_MARK} lookup {TABLE}"])
            mark = [*_sometimes(late), "-j", "MARK", "--set-mark", LATE_MARK]
            stack.enter_context(rule(lab, ROUTER, "PREROUTING", mark, "mangle"))
        for host in lab.topology.hosts if repeated else ():
            to = ["-d", host.address, *_sometimes(repeated), "-j", "TEE", "--gateway", host.address]
            stack.enter_context(rule(lab, ROUTER, "PREROUTING", to, "mangle"))
        if loss:
            stack.enter_context(rule(lab, ROUTER, "PREROUTING", [*_sometimes(loss), "-j", "DROP"], "raw"))
        yield
