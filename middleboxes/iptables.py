# SPDX-License-Identifier: Apache-2.0
"""Middleboxes that are the kernel's own: a strict stateful firewall and NAT, by iptables and conntrack."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from middleboxes.box import Place

STRICT = {"net.netfilter.nf_conntrack_tcp_be_liberal": "0", "net.netfilter.nf_conntrack_tcp_loose": "0"}
FORWARD = {"net.ipv4.ip_forward": "1"}

FIREWALL_RULES = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p tcp --syn -m conntrack --ctstate NEW -j ACCEPT
COMMIT
"""
NO_FILTER = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
NAT_RULES = """*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
{rules}COMMIT
"""
COUNTED = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$")


def rule_packets(place: Place, table: str, chain: str) -> list[tuple[int, str]]:
    """The packets that each rule of a chain has counted, and the rule."""
    lines = place.run(["iptables", "-t", table, "-L", chain, "-v", "-x", "-n"]).splitlines()[2:]
    found = [COUNTED.match(line) for line in lines]
    return [(int(m[1]), f"{m[3]} {m[4]}") for m in found if m]


@dataclass
class Firewall:
    """Forwards what conntrack knows; drops and counts what it calls INVALID; a session begins with its SYN."""

    place: Place | None = None  # of one that runs already

    def start(self, place: Place) -> None:
        self.place = place
        place.run(["iptables-restore"], FIREWALL_RULES)
        place.sysctl(FORWARD | STRICT)

    def ready(self) -> bool:
        return self.place is not None

    def stop(self) -> None:
        if self.place:
            self.place.run(["iptables-restore"], NO_FILTER)

    def counters(self) -> dict[str, int]:
        """invalid: packets dropped as INVALID; new: sessions let in; passed: packets of those known."""
        assert self.place
        counted = rule_packets(self.place, "filter", "FORWARD")
        named = {"invalid": "INVALID", "passed": "ESTABLISHED", "new": "NEW"}
        return {name: sum(packets for packets, rule in counted if word in rule) for name, word in named.items()}


@dataclass
class Nat:
    """masquerade: what leaves has this host's address.  source: SNAT to an address.  ports: DNAT, port -> (address, port)."""

    source: str = ""
    ports: dict[int, tuple[str, int]] = field(default_factory=dict)
    masquerade: bool = True
    _place: Place | None = field(default=None, repr=False)

    def _rules(self) -> str:
        rules = [f"-A PREROUTING -p tcp --dport {p} -j DNAT --to-destination {a}:{to}\n" for p, (a, to) in self.ports.items()]
        if self.source:
            rules.append(f"-A POSTROUTING -p tcp -j SNAT --to-source {self.source}\n")
        elif self.masquerade:
            rules.append("-A POSTROUTING -p tcp -j MASQUERADE\n")
        return NAT_RULES.format(rules="".join(rules))

    def start(self, place: Place) -> None:
        self._place = place
        place.run(["iptables-restore"], self._rules())
        place.sysctl(FORWARD)

    def ready(self) -> bool:
        return self._place is not None

    def stop(self) -> None:
        if self._place:
            self._place.run(["iptables-restore"], NAT_RULES.format(rules=""))

    def counters(self) -> dict[str, int]:
        """Sessions whose source or destination was translated."""
        assert self._place
        counts = {"source": 0, "destination": 0}
        for name, chain in (("source", "POSTROUTING"), ("destination", "PREROUTING")):
            counts[name] = sum(packets for packets, _ in rule_packets(self._place, "nat", chain))
        return counts
