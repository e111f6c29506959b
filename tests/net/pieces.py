# SPDX-License-Identifier: Apache-2.0
"""Both ends of a session through the transcoder: compressed pieces one way, expanded ones the other, then plain bytes.

python -m tests.net.pieces client ADDRESS PORT PIECES | server PORT PIECES: prints hashes of what was sent and received.
"""

import hashlib
import json
import socket
import sys
import threading
import time
import zlib

PLAIN, CHUNK, PAUSE_S = 200, 2000, 0.01


def number(i, who):
    """What piece i of a side says: it compresses well."""
    return f"{who} {i} ".encode() * 300


def read_exactly(s, n):
    data = b""
    while len(data) < n:
        got = s.recv(n - len(data))
        assert got, "ended in a piece"
        data += got
    return data


def send(s, who, pieces, compressed, seen):
    for i in range(pieces):
        piece = number(i, who)
        seen.update(piece)
        coded = zlib.compress(piece) if compressed else piece
        s.sendall(len(coded).to_bytes(4, "big") + coded)
    for i in range(PLAIN):
        data = f"{who}{i}".encode().ljust(CHUNK, b".")
        seen.update(data)
        s.sendall(data)
        time.sleep(PAUSE_S)
    s.shutdown(socket.SHUT_WR)


def receive(s, pieces, compressed, seen):
    for _ in range(pieces):
        piece = read_exactly(s, int.from_bytes(read_exactly(s, 4), "big"))
        seen.update(zlib.decompress(piece) if compressed else piece)
    while data := s.recv(65536):
        seen.update(data)


def talk(s, who, pieces):
    """The client sends compressed pieces and gets compressed ones; the server sends and gets them expanded."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    sender = threading.Thread(target=send, args=(s, who, pieces, who == "client", sent))
    sender.start()
    receive(s, pieces, who == "client", received)
    sender.join()
    print(json.dumps({"sent": sent.hexdigest(), "received": received.hexdigest()}), flush=True)


if sys.argv[1] == "client":
    talk(socket.create_connection((sys.argv[2], int(sys.argv[3]))), "client", int(sys.argv[4]))
else:
    listener = socket.create_server(("", int(sys.argv[2])))
    print("ready", flush=True)
    talk(listener.accept()[0], "server", int(sys.argv[3]))
