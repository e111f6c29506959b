# SPDX-License-Identifier: Apache-2.0
"""Does Dysco make what is on the wire longer?  A transfer is captured at the router, which every frame crosses."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

from lab.experiments.framework.costs import PORT
from lab.experiments.framework.recorder import Recorder
from lab.network import Lab, LabFailed, end
from lab.tool import run
from lab.topologies import ROUTER

TRANSFER = "60K"
SNAP = 128
ETHERNET = 14
FIELDS = ("ip.len", "ip.hdr_len", "tcp.hdr_len", "tcp.len", "tcp.flags.syn")


def cut(lab: Lab) -> None:
    """Segments leave client and server one by one: a capture then shows what a wire would carry."""
    for name in ("client", "server"):
        lab.batch(name, ["link set dev eth0 gso_max_segs 1"])


def record_frames(lab: Lab, record: Recorder, mode: str) -> None:
    """The longest frames, and the headers of segments with data, in bytes."""
    capture = record.raw / f"{mode}.pcap"
    words = ["tcpdump", "-i", "any", "-n", "-U", "--immediate-mode", "-s", str(SNAP), "-w", str(capture), "tcp"]
    dump = lab.popen(ROUTER, words, stderr=subprocess.PIPE)
    assert dump.stderr
    while "listening" not in dump.stderr.readline():
        if dump.poll() is not None:
            raise LabFailed("tcpdump has ended before it listened")
    _transfer(lab)
    time.sleep(0.3)
    end(dump)
    for name, value in _lengths(capture).items():
        record(mode, name, value)


def _transfer(lab: Lab) -> None:
    address = lab.topology.host("server").address
    with lab.service("server", ["iperf3", "-s", "-1", "--forceflush", "-p", str(PORT + 1)], word="-----"):
        lab.run("client", ["iperf3", "-c", address, "-p", str(PORT + 1), "-n", TRANSFER, "-l", "8K"])


def _lengths(capture: Path) -> dict[str, int]:
    words = ["tshark", "-r", str(capture), "-T", "fields", *(w for field in FIELDS for w in ("-e", field))]
    rows = [list(map(int, line.replace("True", "1").replace("False", "0").split())) for line in run(words).splitlines()]
    if not any(row[4] for row in rows) or all(row[4] for row in rows):
        raise LabFailed(f"{capture.name}: {len(rows)} frames, not a whole session")
    others = [row for row in rows if not row[4]]
    return {
        "frames": len(rows),
        "frame_bytes_max": ETHERNET + max(row[0] for row in rows),
        "syn_frame_bytes_max": ETHERNET + max(row[0] for row in rows if row[4]),
        "data_frame_bytes_max": ETHERNET + max(row[0] for row in others),
        # the usual ones: where something got lost, acknowledgments are longer by blocks of SACK
        "header_bytes": ETHERNET + statistics.mode(row[1] + row[2] for row in others if row[3]),
    }
