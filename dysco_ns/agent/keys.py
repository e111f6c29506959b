# SPDX-License-Identifier: Apache-2.0
"""Keys that sign signalling messages, as the core wants them: SHA-256 states after the two HMAC pad blocks."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

MIN_BYTES, MAX_BYTES = 16, 64
MOST_READ = 4096
_MASK = 0xFFFFFFFF


class BadKey(Exception):
    """A key file that must not be used; says why."""


def _primes() -> list[int]:
    found: list[int] = []
    n = 2
    while len(found) < 64:
        if all(n % p for p in found):
            found.append(n)
        n += 1
    return found


def _root_bits(prime: int, degree: int) -> int:
    """The first 32 bits of the fraction of a prime's square or cube root (FIPS 180-4, 4.2.2 and 5.3.3)."""
    target = prime << (32 * degree)
    low, high = 0, 1 << 40
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= target else (low, middle - 1)
    return low & _MASK


K = [_root_bits(p, 3) for p in _primes()]
INITIAL = [_root_bits(p, 2) for p in _primes()[:8]]


def _rotate(x: int, n: int) -> int:
    return (x >> n | x << (32 - n)) & _MASK


def compress(state: list[int], block: bytes) -> list[int]:
    """One compression of SHA-256 (64 bytes of message)."""
    w = list(struct.unpack(">16I", block))
    for i in range(16, 64):
        s0 = _rotate(w[i - 15], 7) ^ _rotate(w[i - 15], 18) ^ w[i - 15] >> 3
        s1 = _rotate(w[i - 2], 17) ^ _rotate(w[i - 2], 19) ^ w[i - 2] >> 10
        w.append((w[i - 16] + s0 + w[i - 7] + s1) & _MASK)
    a, b, c, d, e, f, g, h = state
    for i in range(64):
        t1 = h + (_rotate(e, 6) ^ _rotate(e, 11) ^ _rotate(e, 25)) + (e & f ^ ~e & g) + K[i] + w[i]
        t2 = (_rotate(a, 2) ^ _rotate(a, 13) ^ _rotate(a, 22)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (t1 + t2) & _MASK, a, b, c, (d + t1) & _MASK, e, f, g
    return [(x + y) & _MASK for x, y in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


def hmac_states(key: bytes) -> dict[str, list[int]]:
    """The fields inner and outer of struct hmac_key (RFC 2104)."""
    padded = key.ljust(64, b"\0")
    return {
        "inner": compress(INITIAL, bytes(x ^ 0x36 for x in padded)),
        "outer": compress(INITIAL, bytes(x ^ 0x5C for x in padded)),
    }


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe has a writer only if somebody comes


def read_key(path: Path) -> bytes:
    """The key in a file that only its owner may read.  BadKey says what is wrong with it."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:  # who owns it and what it holds: of one and the same file
            status = os.fstat(file.fileno())
            key = file.read(MOST_READ).strip() if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise BadKey(f"key file {path}: {os.strerror(error.errno or 0)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BadKey(f"key file {path} is not a file")
    if status.st_uid not in (0, os.geteuid()):
        raise BadKey(f"key file {path} belongs to user {status.st_uid}, who could change it: chown {os.geteuid()} {path}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise BadKey(f"key file {path} can be read by others: chmod 600 {path}")
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise BadKey(f"key file {path} holds {len(key)} bytes: {MIN_BYTES} to {MAX_BYTES} are needed")
    return key
