# SPDX-License-Identifier: Apache-2.0
"""Reconfigurations that this agent leads as left anchor: sent, repeated, released, cancelled (paper III-A, III-F, III-G).

Time is an argument and the core is an object with `command` and `record`: the class can be driven without a clock.
The data path never waits for it; it only repeats what may have been lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from dysco_ns.agent.core import Event

FIRST_REPEAT_S, LAST_REPEAT_S = 0.02, 0.5
GIVE_UP_S = 3.0  # no new path until then: cancel
RELEASE_FIRST_S, RELEASE_LAST_S = 0.02, 1.0
FORGET_S = 2.0  # a record that has settled is dropped after this
PARK_GIVE_UP_S = 30.0  # new data waits no longer than this for an old path that does not drain: cancel
SIDE_RIGHT = 1
CONTROL_RIGHT_OF, CONTROL_PARK, CONTROL_GO = 1, 64, 128

PARK = 262144  # RECONFIG_PARK
SETTLING = 4  # PHASE_SETTLING

RETRY_HELPS = {"locked", "busy", "stale", "timeout", "not_spliced", "bad_state"}
REASONS = {
    "no_session": "no such session here (it may be over; `dysco sessions` lists them)",
    "session_over": "the session is over",
    "not_spliced": "the middlebox terminates TCP and has not joined its two sessions (dysco_splice)",
    "locked": "another reconfiguration has locked the segment",
    "no_right_anchor": "the right anchor is not on the session's chain",
    "options": "the two sessions of the proxy negotiated different timestamps",
    "busy": "an earlier reconfiguration of the session is not finished",
    "no_route": "no route to the next host of the new path",
    "stale": "another reconfiguration of the session is newer than this agent knew",
    "bad_state": "the session is not established",
    "no_room": "the agent's tables are full",
    "forwarded": "port forwarding lies on the way: from before it only the first host behind it can be reached, as right anchor",
    "nat": "the left neighbour is behind a NAT without an agent: start it from that side",
    "parking": "an anchor has no place where segments could wait (/dev/net/tun), so no state can be migrated",
    "in_use": "a session with this five-tuple is open",
    "timeout": "no answer: a host on the old or the new path has no agent, another key, or is down",
}


class CorePort(Protocol):
    def command(self, kind: str, **fields: Any) -> str: ...

    def record(self, nonce: int, side: int) -> dict[str, Any] | None: ...

    def new_txid(self, nonce: int) -> int: ...


@dataclass
class Outcome:
    """How a reconfiguration ended; times in microseconds from the request, stamped in the kernel."""

    session: int
    outcome: str  # done, refused, failed, cancelled
    reason: str = ""
    reconfig_us: float | None = None
    first_byte_us: float | None = None
    old_path_drained_us: float | None = None
    migration_us: float | None = None  # from "both anchors wait" to "the state has moved"

    def as_json(self) -> dict[str, Any]:
        return {
            "session": f"{self.session:016x}",
            "outcome": self.outcome,
            "reason": REASONS.get(self.reason, self.reason),
            "retry": self.reason in RETRY_HELPS,
            "reconfig_us": self.reconfig_us,
            "first_byte_us": self.first_byte_us,
            "old_path_drained_us": self.old_path_drained_us,
            "migration_us": self.migration_us,
        }


@dataclass
class Attempt:
    nonce: int
    txid: int
    started: float
    next_at: float
    wait: float
    ready: bool = False
    cancelling: bool = False
    migrate: Callable[[], None] | None = None  # begins to move a middlebox's state; `migrated` hears the end
    migration: str = ""  # "", "under way", "done", or why it failed
    migration_us: float | None = None
    done: list[Callable[[Outcome], None]] = field(default_factory=list)


class Leader:
    """All reconfigurations under way at this agent, by session."""

    def __init__(
        self, core: CorePort, on_outcome: Callable[[Outcome], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._core = core
        self._on_outcome = on_outcome
        self._clock = clock
        self.attempts: dict[int, Attempt] = {}
        self._forget: list[tuple[float, int, int, int]] = []

    def start(
        self,
        nonce: int,
        change: dict[str, Any],
        done: Callable[[Outcome], None] | None = None,
        migrate: Callable[[], None] | None = None,
    ) -> None:
        """Requests the lock for a change (fields of struct command); `done` hears how it ended.  `migrate` is called
        when both anchors hold back new data and the old path has drained; then `migrated` must be."""
        txid, now = self._core.new_txid(nonce), self._clock()
        attempt = Attempt(nonce, txid, now, now + FIRST_REPEAT_S, FIRST_REPEAT_S, migrate=migrate)
        if migrate:
            change = {**change, "flags": change.get("flags", 0) | CONTROL_PARK}
        if done:
            attempt.done.append(done)
        if nonce in self.attempts:
            return self._report(attempt, Outcome(nonce, "refused", "busy"))
        self.attempts[nonce] = attempt
        reason = self._core.command("reconfigure", nonce=nonce, txid=txid, **change)
        if reason != "not":
            self._end(attempt, Outcome(nonce, "refused", reason))
        return None

    def resume(self, nonce: int, record: dict[str, Any], now: float) -> None:
        """Takes up a reconfiguration that an earlier daemon left in the tables."""
        self.attempts[nonce] = Attempt(nonce, record["txid"], now, now, FIRST_REPEAT_S, ready=record["phase"] >= 3)

    def migrated(self, nonce: int, problem: str, took_us: float) -> None:
        """The state has moved, or (`problem`) it has not: then the attempt is cancelled."""
        attempt = self.attempts.get(nonce)
        if attempt and attempt.migration == "under way":
            attempt.migration, attempt.migration_us = problem or "done", took_us
            attempt.next_at, attempt.wait, attempt.started = 0.0, RELEASE_FIRST_S, self._clock()

    # ---- events of the data path ----

    def handle(self, event: Event, now: float) -> None:
        if event.kind in ("old_path_gone", "settled"):  # settles by time what no traffic has settled; then drops it
            self._forget.append((now + FORGET_S, event.nonce, event.txid, event.side))
        attempt = self.attempts.get(event.nonce)
        if not attempt or attempt.txid != event.txid or event.side != SIDE_RIGHT:
            return
        if event.kind == "lock_refused":
            self._end(attempt, Outcome(event.nonce, "refused", self._reason(event.value)))
        elif event.kind == "new_path_ready":
            attempt.ready, attempt.started, attempt.wait = True, now, RELEASE_FIRST_S
            attempt.next_at = now + RELEASE_FIRST_S
        elif event.kind == "drained":
            attempt.next_at = now
        elif event.kind == "migrate" and not attempt.migration and attempt.migrate:
            attempt.migration = "under way"
            attempt.migrate()
        elif event.kind == "old_path_gone":
            self._end(attempt, self._success(attempt))
        elif event.kind == "cancelled":
            self._end(attempt, Outcome(event.nonce, "cancelled", self._why(attempt)))

    def _why(self, attempt: Attempt) -> str:
        failed = attempt.migration not in ("", "under way", "done")
        return f"the state was not migrated: {attempt.migration}" if failed else "timeout"

    def _reason(self, value: int) -> str:
        refusals: dict[int, str] = getattr(self._core, "refusals", {})
        return refusals.get(value, str(value))

    def _success(self, attempt: Attempt) -> Outcome:
        r = self._core.record(attempt.nonce, SIDE_RIGHT) or {}

        def since(name: str) -> float | None:
            return (r[name] - r["lock_ns"]) / 1000 if r.get(name) else None

        times = since("ready_ns"), since("first_byte_ns"), since("drained_ns")
        return Outcome(attempt.nonce, "done", "", *times, attempt.migration_us)

    # ---- timers ----

    def tick(self, now: float) -> float:
        """Does what is due; returns when to be called again (monotonic seconds)."""
        for attempt in list(self.attempts.values()):
            if attempt.next_at <= now:
                self._due(attempt, now)
        for at, nonce, txid, side in [f for f in self._forget if f[0] <= now]:
            self._forget.remove((at, nonce, txid, side))
            if self._core.command("forget_record", nonce=nonce, txid=txid, side=side) == "busy":
                self._forget.append((now + FORGET_S, nonce, txid, side))  # something is to be learnt still
        times = [a.next_at for a in self.attempts.values()] + [f[0] for f in self._forget]
        return min(times, default=now + 1.0)

    def _due(self, attempt: Attempt, now: float) -> None:
        last = RELEASE_LAST_S if attempt.ready else LAST_REPEAT_S
        attempt.wait = min(attempt.wait * 2, last)
        attempt.next_at = now + attempt.wait
        if attempt.ready and attempt.migrate and not attempt.migration and now - attempt.started > PARK_GIVE_UP_S:
            attempt.migration, attempt.started = "the old path has not drained", now
        failed = attempt.migration not in ("", "under way", "done")
        if attempt.ready and not failed:
            self._send(attempt, "release", flags=CONTROL_GO if attempt.migration == "done" else 0)
        elif failed and now - attempt.started < GIVE_UP_S:
            self._send(attempt, "cancel")
        elif not attempt.ready and now - attempt.started < GIVE_UP_S:
            self._send(attempt, "repeat")
        elif not attempt.cancelling and not failed:
            attempt.cancelling = True
            attempt.next_at = now + FIRST_REPEAT_S
            self._send(attempt, "cancel")
        else:
            reason = self._core.command("forget_record", nonce=attempt.nonce, txid=attempt.txid, side=SIDE_RIGHT)
            if reason == "bad_state":  # the right anchor has answered after all: go on
                attempt.started, attempt.cancelling = now, False
            else:
                self._end(attempt, Outcome(attempt.nonce, "cancelled", self._why(attempt)))

    def _send(self, attempt: Attempt, what: str, **fields: Any) -> None:
        reason = self._core.command(what, nonce=attempt.nonce, txid=attempt.txid, **fields)
        if reason in ("no_session", "session_over"):
            self._end(attempt, Outcome(attempt.nonce, "failed", "session_over"))
        elif reason == "bad_state" and what == "release":
            self._overheard(attempt)

    def _overheard(self, attempt: Attempt) -> None:
        """An event may get lost when the ring is full; the record has what it told."""
        r = self._core.record(attempt.nonce, SIDE_RIGHT)
        if r and r["txid"] == attempt.txid and r["phase"] >= SETTLING:
            self._end(attempt, self._success(attempt))

    def sweep(self, records: Iterable[tuple[dict[str, Any], dict[str, Any]]], now: float) -> None:
        """Records that settle, or have, and that no event or daemon remembers: they end by time all the same."""
        remembered = {(nonce, txid, side) for _, nonce, txid, side in self._forget}
        for key, r in records:
            which = (key["nonce"], r["txid"], key["side"])
            if r["phase"] >= SETTLING and which not in remembered:
                self._forget.append((now + FORGET_S, *which))

    # ---- ends ----

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        if self.attempts.pop(attempt.nonce, None):
            self._report(attempt, outcome)

    def _report(self, attempt: Attempt, outcome: Outcome) -> None:
        self._on_outcome(outcome)
        for done in attempt.done:
            done(outcome)
