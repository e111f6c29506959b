# SPDX-License-Identifier: Apache-2.0
"""A TCP end point, as little of one as shows whether what it is given is one ordinary connection."""

import hashlib
import random

from lab.judge import ACK, FIN, RST, SYN, Segment, ahead
from tests.host.segments import MSS_BYTES

PSH, SCALE, BUFFER, MOST_UNDER_WAY = 8, 4, 60_000, 20 * MSS_BYTES
REPEAT_S, SYN_REPEAT_S = 0.3, 1.0
END = object()


class Socket:
    """`send(segment)` takes what it says.  What the other end's application should have got is in `said`, what this one's has
    in `heard`; `faults` are what no ordinary peer and network would have done."""

    def __init__(self, world, local, remote, send, seed, *, timestamps=True, opens=True):
        dice = random.Random(seed)
        self.world, self.local, self.remote, self._send = world, local, remote, send
        self._stream, self._stamp, self._timestamps = random.Random(seed + 1), dice.getrandbits(32), timestamps
        self.iss = self.una = self.nxt = self.top = dice.getrandbits(32)
        self.said, self.heard, self.early, self.faults = bytearray(), bytearray(), {}, []
        self.state, self.closing, self.ended, self.reset = "opening" if opens else "listening", False, False, False
        self.rcv_nxt, self.window, self.peer_scale, self.recent, self.shown = 0, 0, 0, 0, []
        self._moved, self._patience = world.now, REPEAT_S
        if opens:
            self._say(SYN, seq=self.iss)
        world.after(SYN_REPEAT_S, self._timer)

    # ---- what the application does ----

    def write(self, count):
        self.said += self._stream.randbytes(count)
        self._fill()

    def close(self):
        self.closing = True
        self._fill()

    def abort(self):
        self.state = "reset"
        self._say(RST | ACK)

    @property
    def talks(self):
        return self.state == "open" and not (self.closing or self.reset)

    @property
    def over(self):
        """Both directions have ended, and the other end knows."""
        return self.reset or (self.ended and self.closing and self.una == self._end)

    @property
    def _end(self):
        """The number after all that there is to say."""
        return (self.iss + 1 + len(self.said) + self.closing) % 2**32

    # ---- what it says ----

    def _now_ms(self):
        return (self._stamp + int(self.world.now * 1000)) % 2**32

    def _say(self, flags, seq=None, payload=b""):
        syn = flags & SYN
        window = BUFFER if syn else BUFFER >> SCALE
        stamp = (self._now_ms(), self.recent) if self._timestamps else (None, 0)
        ack = self.rcv_nxt if flags & ACK else 0
        self._send(Segment(self.world.now, self.local, self.remote, (self.nxt if seq is None else seq) % 2**32, ack, flags,
                           len(payload), (), payload, *stamp, window, SCALE if syn else 0))  # fmt: skip

    def _fill(self):
        """Says what the window has room for."""
        while self.state == "open" and ahead(self._end, self.nxt) > 0:
            at = ahead(self.nxt, self.iss + 1)
            room = min(self.window, MOST_UNDER_WAY) - ahead(self.nxt, self.una)
            piece = bytes(self.said[at : at + min(MSS_BYTES, max(room, 0))])
            last = self.closing and at + len(piece) == len(self.said)
            if not piece and not (last and room > 0):
                break
            self._say(ACK | (PSH if piece else 0) | (FIN if last else 0), payload=piece)
            self.nxt = (self.nxt + len(piece) + last) % 2**32
            self.top = self.nxt if ahead(self.nxt, self.top) > 0 else self.top

    def _timer(self):
        """Says again what has had no answer; asks who has closed its window."""
        if self.reset or self.over:
            return
        if self.state == "opening":
            self._say(SYN, seq=self.iss)
        elif self.state == "answering":
            self._say(SYN | ACK, seq=self.iss)
        elif self.world.now - self._moved >= self._patience and ahead(self._end, self.una) > 0:
            self._moved, self._patience = self.world.now, min(2 * self._patience, 60.0)
            if self.window:
                self.nxt = self.una
                self._fill()
            else:
                self._say(ACK, seq=self.una - 1)
        self.world.after(SYN_REPEAT_S if self.state != "open" else REPEAT_S, self._timer)

    # ---- what it hears ----

    def hear(self, s):
        if self.reset:
            return None
        if self.state == "reset":  # there is no such connection here any more
            return self._say(RST, seq=s.ack) if s.flags & (ACK | RST) == ACK else None
        if self.state in ("opening", "listening") and s.flags & SYN:
            return self._opened(s)
        if s.flags & RST:
            self.reset = s.seq == self.rcv_nxt or (self.state == "opening" and s.ack == self.iss + 1)
            return None if self.reset else self._say(ACK)
        if self.state == "answering" and s.flags & ACK and s.ack == (self.iss + 1) % 2**32:
            self.state, self.una, self.nxt = "open", s.ack, s.ack
        if self.state != "open" or s.flags & SYN:
            return self._say(SYN | ACK, seq=self.iss) if self.state == "answering" else None
        if self._timestamps and not self._in_time(s):
            return None
        self._acknowledged(s)
        self._take(s)
        self._fill()
        return None

    def _opened(self, s):
        self.rcv_nxt, self.peer_scale, self.recent, self.window = (s.seq + 1) % 2**32, s.window_scale, s.tsval or 0, s.window
        self._timestamps = self._timestamps and s.tsval is not None
        if self.state == "opening" and s.flags & ACK:
            self.una = self.nxt = self.top = s.ack
            self.state = "open"
            self._say(ACK)
            self._fill()
        else:  # it listens, or both have opened at once
            self.state = "answering"
            self._say(SYN | ACK, seq=self.iss)
            self.nxt = self.top = (self.iss + 1) % 2**32

    def _in_time(self, s):
        """PAWS (RFC 7323 5.3)."""
        if s.tsval is None or ahead(s.tsval, self.recent) < 0:
            self.faults.append(f"a timestamp fell to {s.tsval} from {self.recent}")
            return False
        if ahead(s.tsecr, self._now_ms()) > 0:
            self.faults.append("an echo of what was never said")
        if ahead(s.seq, self.rcv_nxt) <= 0:
            self.recent = s.tsval
        return True

    def _acknowledged(self, s):
        if ahead(s.ack, self.top) > 0:
            self.faults.append(f"{ahead(s.ack, self.top)} bytes were acknowledged before they were said")
            return
        self.shown.append((self.world.now, s.ack, s.window << self.peer_scale))
        if ahead(s.ack, self.una) > 0:
            self.una, self._moved, self._patience = s.ack, self.world.now, REPEAT_S
            self.nxt = s.ack if ahead(self.nxt, s.ack) < 0 else self.nxt
        self.window = (s.window << self.peer_scale) + ahead(s.ack, self.una)

    def _take(self, s):
        if not s.length and not s.flags & FIN:
            if ahead(s.seq, self.rcv_nxt) < 0:
                self._say(ACK)  # a probe
            return
        self.early[s.seq] = s
        for early in sorted(self.early.values(), key=lambda e: ahead(e.seq, self.rcv_nxt)):
            skip = ahead(self.rcv_nxt, early.seq)
            if skip < 0:
                break
            del self.early[early.seq]
            if skip < early.length or (early.flags & FIN and skip == early.length):
                self.heard += early.payload[skip:]
                self.ended = self.ended or bool(early.flags & FIN)
                self.rcv_nxt = early.end
        self._say(ACK)


def same(one, other):
    """Whether each application has heard all that the other has said."""
    pairs = ((one.said, other.heard), (other.said, one.heard))
    return all(hashlib.sha256(a).digest() == hashlib.sha256(b).digest() for a, b in pairs)
