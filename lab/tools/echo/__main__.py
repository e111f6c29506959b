# SPDX-License-Identifier: Apache-2.0
"""python -m lab.tools.echo server PORT | client ADDRESS PORT SECONDS EVERY_MS REPORT"""

import socket
import sys
import threading
import time

BYTES = 64


def serve(port: int) -> None:
    listener = socket.create_server(("", port))
    print("ready", flush=True)
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def answer(peer: socket.socket) -> None:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := peer.recv(BYTES):
        peer.sendall(data)


def ask(address: str, port: int, seconds: float, every_s: float, report: str) -> None:
    with socket.create_connection((address, port), 10) as s, open(report, "w") as file:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.monotonic_ns()
            s.sendall(b"." * BYTES)
            left = BYTES
            while left:
                got = len(s.recv(left))
                if not got:
                    sys.exit("echo: the session has ended")
                left -= got
            now = time.monotonic_ns()
            file.write(f"{now} {(now - start) / 1000:.1f}\n")
            time.sleep(every_s)


if sys.argv[1] == "server":
    serve(int(sys.argv[2]))
else:
    ask(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]) / 1000, sys.argv[6])
