# SPDX-License-Identifier: Apache-2.0
"""Frames and what is in them, read and written without the core.  A segment is lab.judge's, so that it can judge."""

import socket
import struct

from lab.judge import SYN, Segment
from tests.net.test_hostile import checksum

IP_AT, TCP_AT = 14, 34
TIMESTAMP, SCALE, MSS, SACK_PERMITTED = 8, 3, 2, 4
MSS_BYTES = 1000


def frame_of(s):
    """The Ethernet frame of a segment, with right checksums."""
    options = b""
    if s.flags & SYN:
        options += struct.pack("!BBH", MSS, 4, MSS_BYTES) + struct.pack("!BBB", SCALE, 3, s.window_scale) + b"\x01"
    if s.tsval is not None:
        options += b"\x01\x01" + struct.pack("!BBII", TIMESTAMP, 10, s.tsval % 2**32, s.tsecr % 2**32)
    offset = (20 + len(options)) // 4 << 4
    tcp = struct.pack("!HHIIBBHHH", s.src[1], s.dst[1], s.seq, s.ack, offset, s.flags, s.window, 0, 0) + options + s.payload
    ends = socket.inet_aton(s.src[0]) + socket.inet_aton(s.dst[0])
    tcp = tcp[:16] + struct.pack("!H", checksum(ends + struct.pack("!BBH", 0, 6, len(tcp)) + tcp)) + tcp[18:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + ends
    return bytes(12) + b"\x08\x00" + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


def _options(raw):
    at = 0
    while at < len(raw) and raw[at] != 0:
        if raw[at] == 1:
            at += 1
            continue
        yield raw[at], raw[at + 2 : at + raw[at + 1]]
        at += raw[at + 1]


def segment_of(frame, time_s=0.0):
    """What a frame says; None if it is no IPv4 TCP segment.  AssertionError where a checksum is wrong."""
    if frame[12:14] != b"\x08\x00" or frame[IP_AT + 9] != 6:
        return None
    length = int.from_bytes(frame[IP_AT + 2 : IP_AT + 4], "big")
    ip, tcp = frame[IP_AT:TCP_AT], frame[TCP_AT : IP_AT + length]
    pseudo = ip[12:20] + struct.pack("!BBH", 0, 6, len(tcp))
    assert checksum(ip) == 0, "a wrong checksum of IP"
    assert checksum(pseudo + tcp) == 0, "a wrong checksum of TCP"
    sport, dport, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", tcp)
    header = (offset >> 4) * 4
    options = dict(_options(tcp[20:header]))
    tsval, tsecr = struct.unpack("!II", options[TIMESTAMP]) if TIMESTAMP in options else (None, 0)
    src, dst = (socket.inet_ntoa(ip[12:16]), sport), (socket.inet_ntoa(ip[16:20]), dport)
    return Segment(
        time_s, src, dst, seq, ack, flags, len(tcp) - header, tuple(str(kind) for kind in options), tcp[header:], tsval, tsecr,
        window, options[SCALE][0] if SCALE in options else 0, ip[1] >> 2 == 48,
    )  # fmt: skip


def readdressed(frame, src=None, dst=None):
    """The frame as a NAT sends it on: other ends (address, port), whatever else it says."""
    changed = bytearray(frame)
    for at, end in ((0, src), (1, dst)):
        if end:
            changed[IP_AT + 12 + 4 * at : IP_AT + 16 + 4 * at] = socket.inet_aton(end[0])
            changed[TCP_AT + 2 * at : TCP_AT + 2 * at + 2] = end[1].to_bytes(2, "big")
    changed[IP_AT + 10 : IP_AT + 12] = changed[TCP_AT + 16 : TCP_AT + 18] = bytes(2)
    length = int.from_bytes(changed[IP_AT + 2 : IP_AT + 4], "big") - 20
    changed[IP_AT + 10 : IP_AT + 12] = checksum(bytes(changed[IP_AT:TCP_AT])).to_bytes(2, "big")
    pseudo = bytes(changed[IP_AT + 12 : TCP_AT]) + struct.pack("!BBH", 0, 6, length)
    changed[TCP_AT + 16 : TCP_AT + 18] = checksum(pseudo + bytes(changed[TCP_AT : TCP_AT + length])).to_bytes(2, "big")
    return bytes(changed)
