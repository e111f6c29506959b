# SPDX-License-Identifier: Apache-2.0
"""Malformed frames for a DPDK data path under AddressSanitizer, over and over: what it has sent itself, changed, and what the
fuzzers have found."""

import os
import random
import signal
import socket
import struct
import subprocess
import time

import pytest

from dysco_ns.agent.core import Core
from dysco_ns.dpdk.client import DataPath
from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT
from dysco_ns.netns import Interface
from lab.results import ROOT

PROGRAM = ROOT / "build" / "dysco-dpdk-sanitized"
OWN, BOX, SERVER = "10.0.0.1", "10.0.0.2", "10.9.0.2"
MAC = bytes.fromhex("020000000001")
FILE_HEADER, FRAME_HEADER = struct.Struct("<IHHiIII"), struct.Struct("<IIII")  # of a pcap file
RETURN_ONE = {"code": 6, "jt": 0, "jf": 0, "k": 1}
AT_DESTINATION, AT_TCP, HEADERS = 30, 34, 74
MAGIC, CONTROL = b"DY\x14", bytes.fromhex("fe044459")
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
SYN_OPTIONS = bytes.fromhex("020405b40402080a000000090000000001030307")

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="not built: run `make dpdk-sanitized`")


def write_pcap(path, frames):
    header = FILE_HEADER.pack(0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(header + b"".join(FRAME_HEADER.pack(0, 0, len(f), len(f)) + f for f in frames))


def read_pcap(path):
    data, at, frames = path.read_bytes(), FILE_HEADER.size, []
    while at + FRAME_HEADER.size <= len(data):
        length = FRAME_HEADER.unpack_from(data, at)[2]
        at += FRAME_HEADER.size
        frames.append(data[at : at + length])
        at += length
    return frames


def syn(port):
    tcp = struct.pack("!HHIIBBHHH", port, 5001, port * 7, 0, 0xA0, 2, 4096, 0, 0) + SYN_OPTIONS
    ends = socket.inet_aton(OWN) + socket.inet_aton(SERVER)
    return MAC + MAC + b"\x08\x00" + struct.pack("!BBHHHBBH", 0x45, 0, 60, 0, 0x4000, 64, 6, 0) + ends + tcp


def changed(frame, dice):
    data = bytearray(frame)
    data[AT_DESTINATION : AT_DESTINATION + 4] = socket.inet_aton(OWN)
    for _ in range(dice.randrange(4)):
        data[dice.randrange(12, len(data))] = dice.randrange(256)
    if dice.random() < 0.2:
        data = data[: dice.randrange(14, len(data))]
    if dice.random() < 0.1:
        data += dice.randbytes(dice.randrange(1, 600))
    return bytes(data)


def syn_with(payload, options=b""):
    """A SYN to this host that carries whatever it may be."""
    header = struct.pack("!HHIIBBHHH", 40000, 5001, 1, 0, (20 + len(options)) << 2, 2, 4096, 0, 0) + options
    ends = socket.inet_aton(SERVER) + socket.inet_aton(OWN)
    total = 20 + len(header) + len(payload)
    return MAC + MAC + b"\x08\x00" + struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0x4000, 64, 6, 0) + ends + header + payload


def corpus_frames():
    """Each input of the fuzzers as a frame, as a TCP header, as a message, and as what a control segment carries."""
    frames = []
    for file in sorted(f for f in CORPUS.rglob("*") if f.is_file()):
        data = file.read_bytes()[:1400]
        ip = syn_with(b"")[:AT_TCP]
        frames += [data.ljust(14, b"\0"), ip + data, syn_with(data), syn_with(MAGIC + data),
                   syn_with(MAGIC + data, CONTROL)]  # fmt: skip
    return frames


class Running:
    """The program with files for ports, which it reads again and again; they are configured as a daemon would."""

    def __init__(self, tmp_path, wire, host, started, workers=1):
        self.out = tmp_path / "wire-out.pcap"
        path = tmp_path / "dpdk.sock"
        argv = [str(PROGRAM), "--wire", f"net_pcap0,rx_pcap={wire},tx_pcap={self.out},infinite_rx=1",
                "--host", f"net_pcap1,rx_pcap={host},tx_pcap={tmp_path / 'host-out.pcap'},infinite_rx=1",
                "--socket", str(path), "--sessions", "512", "--no-huge", "--workers", str(workers)]  # fmt: skip
        environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # DPDK frees little when it ends
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        started.append(self.process)
        assert self.process.stdout.readline() == "ready\n", self.process.stderr.read()
        self.core = Core(DataPath(path, Btf(OBJECT)))
        self.core.programs.map("next_hop_table").put(512, {"address": BOX, "ifindex": 1, "resolved": 1, "from": OWN})
        self.core.programs.map("next_hop_index").put({"address": BOX, "from": "0.0.0.0"}, 512)
        self.core.put_policies([{"id": 1, "insns": 1, "chain_length": 1, "chain": [BOX], "filter": [RETURN_ONE]}])
        self.core.configure([Interface(1, "dysco0", MAC, OWN)], domains=[{"sign": 0}], events=True)

    def end(self):
        """Exit status, and what it complained about."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def started():
    """Processes that end with the test, however it ends."""
    processes = []
    yield processes
    for process in processes:
        process.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_malformed_frames_are_counted_and_harm_nothing(tmp_path, started, workers):
    dice = random.Random(1)
    nothing, syns, hostile = (tmp_path / name for name in ("nothing.pcap", "syns.pcap", "hostile.pcap"))
    write_pcap(nothing, [bytes(60)])
    write_pcap(syns, [syn(30000 + i) for i in range(40)])
    quiet = Running(tmp_path, nothing, syns, started, workers)
    time.sleep(0.5)
    counters = quiet.core.counters()
    assert quiet.end() == (0, "")
    assert counters["session_started"] >= 40
    messages = [f for f in read_pcap(quiet.out) if len(f) > HEADERS][:40]
    assert len(messages) == 40

    write_pcap(hostile, [changed(dice.choice(messages), dice) for _ in range(3000)] + corpus_frames())
    attacked = Running(tmp_path, hostile, syns, started, workers)
    least, most = time.monotonic() + 3.0, time.monotonic() + 60.0  # a busy machine gets to the messages late
    counters = {}
    while time.monotonic() < (most if counters.get("drop_bad_message", 0) <= 100 else least):
        attacked.core.expire(0.001, 0.001, 0.0)
        assert sum(1 for _ in attacked.core.sessions()) <= 512 * workers
        counters = attacked.core.counters()
    assert attacked.end() == (0, "")

    assert counters["drop_bad_message"] > 100
    assert counters["session_joined"] > 0
