# SPDX-License-Identifier: Apache-2.0
"""An attacker on the lab's router: records signalling, plays it again, and sends what it has made up."""

import random
import socket
import struct
import threading

from dysco_ns import netns
from lab.topologies import ROUTER
from tests.net.test_hostile import OPTION_254, checksum

ETH_P_ALL, ETH_P_IP, PACKET_OUTGOING = 3, 0x0800, 4
SYN, ACK, FIN, RST = 0x02, 0x10, 0x01, 0x04


def is_signalling(packet):
    """A control segment, or a SYN with a payload; `packet` is IPv4."""
    if packet[9] != socket.IPPROTO_TCP:
        return False
    tcp = packet[20:]
    header = (tcp[12] >> 4) * 4
    syn = tcp[13] & (SYN | ACK) == SYN
    return tcp[20:24] == OPTION_254 or (syn and len(tcp) > header)


def with_checksum(packet):
    """The packet with the checksum that TCP wants; a captured one may leave it to hardware that is not there."""
    head, tcp = packet[:20], packet[20:]
    tcp = tcp[:16] + b"\0\0" + tcp[18:]
    pseudo = head[12:20] + struct.pack("!BBH", 0, 6, len(tcp))
    return head + tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]


class Wiretap(threading.Thread):
    """Everything of the protocol that the router receives, from start to `stop`."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self._path = netns.path_of(lab.pid(ROUTER))
        with netns.entered(self._path):
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, 1 << 26)
        self._tap.settimeout(0.1)
        self._over = threading.Event()
        self.packets = []
        self.start()

    def run(self):
        while not self._over.is_set():
            try:
                packet, (_, protocol, kind, *_) = self._tap.recvfrom(65535)
            except TimeoutError:
                continue
            if protocol == ETH_P_IP and kind != PACKET_OUTGOING and is_signalling(packet):
                self.packets.append(packet[: struct.unpack("!H", packet[2:4])[0]])

    def stop(self):
        self._over.set()
        self.join()
        self._tap.close()
        return self.packets

    def play(self, packets):
        for packet in packets:
            self._raw.sendto(with_checksum(packet), (socket.inet_ntoa(packet[16:20]), 0))

    def close(self):
        self._raw.close()


def altered(packet, rng):
    """A recorded message with one bit of it changed, or cut short."""
    at = 20 + (packet[32] >> 4) * 4
    if rng.random() < 0.5:
        where = rng.randrange(at, len(packet))
        return packet[:where] + bytes([packet[where] ^ 1 << rng.randrange(8)]) + packet[where + 1 :]
    cut = packet[: rng.randrange(at, len(packet))]
    return cut[:2] + struct.pack("!H", len(cut)) + cut[4:]


def blind(tuple_, flags, rng, payload=b""):
    """A segment with the five-tuple of a subsession ("a:p > b:q") and numbers that are guessed."""
    (src, sport), (dst, dport) = (end.split(":") for end in tuple_.split(" > "))
    numbers = rng.getrandbits(32), rng.getrandbits(32)
    tcp = struct.pack("!HHIIBBHHH", int(sport), int(dport), *numbers, 0x50, flags, 512, 0, 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + socket.inet_aton(src) + socket.inet_aton(dst)
    return head + tcp


def backwards(tuple_):
    return " > ".join(tuple_.split(" > ")[::-1])


BLIND = {"FINs": (FIN | ACK, b""), "resets": (RST, b""), "data": (ACK, b"x" * 900), "acknowledgments": (ACK, b"")}


def guesses(tuples, kind, count, seed=1):
    """For each subsession, both ways: so many segments of a kind of BLIND, with guessed numbers."""
    rng, (flags, payload) = random.Random(seed), BLIND[kind]
    return [blind(way, flags, rng, payload) for _ in range(count) for t in tuples for way in (t, backwards(t))]
