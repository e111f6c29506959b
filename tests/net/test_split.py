# SPDX-License-Identifier: Apache-2.0
"""Segments that straddle the cutoff are split; what a queue counts of the pieces is what is on the wire."""

import re
import time
from pathlib import Path

from tests.net.conftest import transfer

PORT, SHORT_QUEUE = 5001, 400_000  # bytes: so that there are losses, whose repetitions reach across the cutoff


def counted_by_the_shaper(lab, host):
    """Bytes that the shaper of a host's link has let through, by its own count."""
    classes = lab.run(host, ["tc", "-s", "class", "show", "dev", "eth0"])
    return int(re.search(r"class htb 1:1 root.*\n Sent (\d+)", classes)[1])


def sent_by_the_device(lab, host):
    lines = Path(f"/proc/{lab.pid(host)}/net/dev").read_text().splitlines()
    return int(next(line for line in lines if line.strip().startswith("eth0")).split()[9])


def splits(lab):
    return sum(lab.agent(h).request("stats")["counters"].get("split", 0) for h in ("client", "server"))


def test_a_shaper_counts_pieces_as_long_as_they_are(lab_of, tmp_path):
    """Pieces of a popped super-packet were counted as 4 GB: their link stood still for minutes."""
    lab = lab_of("chain", middleboxes=2, initial=1, rate=40)
    for host in ("client", "server"):
        change = ["qdisc", "change", "dev", "eth0", "parent", "1:10", "handle", "10:", "bfifo", "limit", str(SHORT_QUEUE)]
        lab.run(host, ["tc", *change])

    def steps():
        time.sleep(1.0)
        first = [{"replace": {"mb1": ["mb2"]}}, {"remove": "mb2"}]
        for change in first + [{"insert": ["mb1"]}, {"remove": "mb1"}] * 8:  # until a loss has been where it must
            lab.agent("client").request("reconfigure", all=True, timeout_s=20, **change)
            if splits(lab) > 1:
                break

    server = lab.topology.host("server").address
    compared = transfer(lab, "client", "server", server, (PORT, PORT), tmp_path, sessions=30, seconds=6, during=steps)
    assert compared.bytes_mismatched == 0
    for host in ("client", "server"):
        assert counted_by_the_shaper(lab, host) < 1.2 * sent_by_the_device(lab, host)
    assert splits(lab) > 0
