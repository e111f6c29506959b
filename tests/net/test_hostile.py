# SPDX-License-Identifier: Apache-2.0
"""Segments that pretend to be signalling are dropped or passed, counted, and change nothing."""

import socket
import struct

import pytest

from dysco_ns import netns

MAGIC, VERSION = b"DY", 0x14
OPTION_254 = b"\xfe\x04DY"
ETH_IP = 0x0800


def checksum(data):
    total = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    return ~(total % 0xFFFF or (0xFFFF if total else 0)) & 0xFFFF  # end-around carries are a remainder


def segment(src, dst, flags, options=b"", payload=b"", dport=5001):
    """An IPv4/TCP packet with right checksums."""
    offset = (20 + len(options)) // 4 << 4
    tcp = struct.pack("!HHIIBBHHH", 41000, dport, 1, 0, offset, flags, 65535, 0, 0) + options + payload
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + socket.inet_aton(src) + socket.inet_aton(dst)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


def message(type_=1, length=40, signed=False, body=None):
    return MAGIC + bytes([VERSION, type_]) + struct.pack("!HBB", length, int(signed), 0) + (body or bytes(length - 8)) + (
        bytes(32) if signed else b"")  # fmt: skip


@pytest.fixture
def net(lab_of):
    """A chain with signatures; send(packets) throws packets at the server from the client's namespace."""
    lab = lab_of("chain", middleboxes=0, hmac="on")

    def send(*packets):
        with netns.entered(netns.path_of(lab.pid("client"))):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            for packet in packets:
                raw.sendto(packet, (server, 0))
        return lab.agent("server").request("stats")["counters"]

    client, server = lab.topology.host("client").address, lab.topology.host("server").address
    return lab, client, server, send


CASES = [
    ("a forged set-up without a signature", 0x02, b"", message(), "drop_unsigned"),
    ("a set-up with a wrong signature", 0x02, b"", message(signed=True), "drop_bad_signature"),
    ("a set-up whose length lies", 0x02, b"", message(length=48)[:44], "drop_bad_message"),
    ("an endless length", 0x02, b"", MAGIC + bytes([VERSION, 1]) + b"\xff\xff\0\0" + bytes(60), "drop_bad_message"),
    ("somebody else's SYN payload", 0x02, b"", b"fast open data, not ours", "pass_foreign_payload"),
    ("a forged control segment", 0x02, OPTION_254, message(type_=2, length=52), "drop_unsigned"),
    ("a truncated control segment", 0x02, OPTION_254, message(type_=2, length=52)[:20], "drop_bad_message"),
    ("a control segment without a message", 0x12, OPTION_254, b"", "drop_bad_message"),
]


@pytest.mark.parametrize(("what", "flags", "options", "payload", "reason"), CASES, ids=[c[0] for c in CASES])
def test_is_counted_under_its_reason_and_makes_no_session(net, what, flags, options, payload, reason):
    lab, client, server, send = net
    counters = send(segment(client, server, flags, options, payload))
    assert counters.get(reason) == 1, counters
    assert lab.agent("server").request("sessions")["sessions"] == []
    assert counters.get("control_sent", 0) == 0


def test_noise_of_every_length_harms_nothing(net):
    lab, client, server, send = net
    packets = [segment(client, server, 0x02, OPTION_254 * (n % 5), MAGIC + bytes([VERSION]) + bytes(n)) for n in range(0, 240, 3)]
    counters = send(*packets)
    assert sum(v for k, v in counters.items() if k.startswith(("drop", "pass"))) >= len(packets) - 2
    assert lab.agent("server").request("sessions")["sessions"] == []
    assert lab.run("client", ["ping", "-c1", "-W1", server])
