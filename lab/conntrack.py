# SPDX-License-Identifier: Apache-2.0
"""What the conntrack of a host knows: the second witness that a path looks like an ordinary connection."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lab.network import Lab


def invalid(lab: Lab, host: str) -> int:
    """Packets that conntrack could not place in any connection, such as those out of window, since the host is up."""
    return sum(map(int, re.findall(r"\binvalid=(\d+)", lab.run(host, ["conntrack", "-S"]))))


def established(lab: Lab, host: str, connections: Iterable[str]) -> int:
    """How many of these connections ("a:p > b:q") are ESTABLISHED there, seen both ways."""
    table = lab.run(host, ["conntrack", "-L", "-p", "tcp", "--state", "ESTABLISHED"])
    found = re.findall(r"ESTABLISHED src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+) src=.*\[ASSURED\]", table)
    known = {f"{src}:{sport} > {dst}:{dport}" for src, dst, sport, dport in found}
    return sum(connection in known for connection in connections)
