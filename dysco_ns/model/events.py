# SPDX-License-Identifier: Apache-2.0
"""Replays what the agents of a run have told against the transitions of the models beside this file.

TABLE has the transitions, RULES what must have happened at the other agents before; docs/verification.md prints both.
    replay(events)      raises NotAllowed, one line, at the first event that a model would not have told
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

LEFT, RIGHT, BETWEEN = "left anchor", "right anchor", "between"
BEGIN = "-"
REFUSED_LOCKED = 4  # enum refusal of core/reasons.h


@dataclass(frozen=True)
class Event:
    """What an agent has told; `side` as the agents' JSON has it."""

    time_ns: int
    host: str
    kind: str
    session: str
    txid: int
    value: int
    side: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.host}, transaction {self.txid:08x} of session {self.session}, {self.time_ns} ns"


class NotAllowed(AssertionError):
    """An event, or the end of a run, that the model does not have."""


class Lost(Exception):
    """An agent had no room for its events: nothing can be said about this run."""


@dataclass(frozen=True)
class Transition:
    """An event takes one of the agents of a transaction from a state to another; where the model does it, word for word."""

    role: str
    before: tuple[str, ...]
    event: str
    after: str
    file: str = ""  # "": not in the models
    inline: str = ""
    statement: str = ""


TABLE = (
    Transition(LEFT, (BEGIN,), "lock_requested", "lock_requested", "lock.pml", "begin", "outcome[t] = asking"),
    Transition(LEFT, ("lock_requested",), "lock_refused", "lock_refused", "lock.pml", "lock_answered", "outcome[t] = lost"),
    Transition(LEFT, ("lock_requested",), "new_path_syn", "new_path_syn", "twopaths.pml", "lock_answered", "new_path_syn()"),
    Transition(LEFT, ("new_path_syn",), "new_path_ready", "new_path_ready", "anchor.pml", "plan_in_handshake",
               "r[i].phase = READY"),
    Transition(LEFT, ("new_path_ready",), "drained", "drained", "twopaths.pml", "release_update", "drained_check(i)"),
    Transition(LEFT, ("drained",), "old_path_gone", "old_path_gone", "twopaths.pml", "release_answered",
               "m_over -> old_path_end(0)"),
    Transition(LEFT, ("old_path_gone",), "settled", "settled", "anchor.pml", "settle", "record_drop(i)"),
    Transition(LEFT, ("lock_requested", "new_path_syn"), "cancelled", "cancelled", "lock.pml", "attempt_undo",
               "outcome[t] = cancelled"),
    Transition(RIGHT, (BEGIN,), "locked", "locked", "lock.pml", "lock_at_right_anchor", "agent[i].record = t"),
    Transition(RIGHT, ("locked",), "new_path_ready", "new_path_ready", "twopaths.pml", "release_at_right_anchor",
               "r[1].phase = READY"),
    Transition(RIGHT, ("new_path_ready",), "drained", "drained", "twopaths.pml", "release_update", "drained_check(i)"),
    Transition(RIGHT, ("drained",), "old_path_gone", "old_path_gone", "twopaths.pml", "release_at_right_anchor",
               "old_path_end(1)"),
    Transition(RIGHT, ("old_path_gone",), "settled", "settled", "anchor.pml", "settle", "record_drop(i)"),
    Transition(RIGHT, ("locked",), "cancelled", "cancelled", "lock.pml", "host",
               "QUIET && agent[i].record && !active(agent[i].record) -> agent[i].record = 0"),
    Transition(BETWEEN, (BEGIN, "lock_pending", "unlocked"), "lock_pending", "lock_pending", "lock.pml", "lock_requested",
               "agent[i].lock == unlocked -> lockPending : agent[i].lock"),
    Transition(BETWEEN, ("locked",), "lock_pending", "locked", "lock.pml", "lock_requested",
               "agent[i].lock == unlocked -> lockPending : agent[i].lock"),
    Transition(BETWEEN, ("lock_pending", "locked"), "locked", "locked", "lock.pml", "lock_answered",
               "message == ackLock -> agent[i].lock = locked"),
    Transition(BETWEEN, ("lock_pending", "locked"), "unlocked", "unlocked", "lock.pml", "lock_answered",
               "else -> agent[i].lock = unlocked"),
    Transition(BETWEEN, ("locked",), "left_chain", "left_chain", "lock.pml", "release_answered",
               "LEFT(t) != i && agent[i].txid == t -> agent[i].lock = unlocked"),
)  # fmt: skip

# An agent's event, and what another agent of the transaction must have told before.
RULES = (
    (RIGHT, "locked", LEFT, "lock_requested"),
    (BETWEEN, "lock_pending", LEFT, "lock_requested"),
    (BETWEEN, "locked", RIGHT, "locked"),
    (LEFT, "new_path_syn", RIGHT, "locked"),
    (RIGHT, "new_path_ready", LEFT, "new_path_syn"),
    (RIGHT, "old_path_gone", LEFT, "drained"),
    (BETWEEN, "left_chain", RIGHT, "old_path_gone"),
    (LEFT, "old_path_gone", RIGHT, "old_path_gone"),
)

# ..., and what none may have told: a new path is made or given up, at both anchors.
NEVER_AFTER = (
    (LEFT, "cancelled", RIGHT, "new_path_ready"),
    (RIGHT, "new_path_ready", LEFT, "cancelled"),
    (RIGHT, "cancelled", LEFT, "new_path_ready"),
)

ENDS = {"lock_refused", "cancelled", "settled"}
# An agent has the lock of the subsession to its right in these states.
HOLDING: dict[str, set[str]] = {
    LEFT: {"lock_requested", "new_path_syn", "new_path_ready", "drained"},
    BETWEEN: {"lock_pending", "locked"},
    RIGHT: set(),
}
LEASED = {"lock_pending", "locked"}  # ends without an event if the left anchor has: between, and a right anchor's record
ONLY_LEFT = {"lock_requested", "lock_refused", "new_path_syn"}
ONLY_BETWEEN = {"lock_pending", "unlocked", "left_chain"}

_STEPS = {(t.role, before, t.event): t.after for t in TABLE for before in t.before}
_KINDS = {t.event for t in TABLE}


def _by_event(rules: tuple[tuple[str, str, str, str], ...]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for role, event, other, told in rules:
        found[role, event].append((other, told))
    return found


_NEEDS, _NEVER = _by_event(RULES), _by_event(NEVER_AFTER)


def role_of(event: Event) -> str:
    """Which of a transaction's agents tells this: an anchor's side is the one on which the change is."""
    if event.kind in ONLY_LEFT:
        return LEFT
    if event.kind in ONLY_BETWEEN or (event.kind == "locked" and event.side == "right"):
        return BETWEEN
    return LEFT if event.side == "right" else RIGHT


@dataclass
class Machine:
    """One agent in one transaction."""

    host: str
    session: str
    role: str
    state: str = BEGIN
    last: Event | None = None
    gone: bool = False  # the session has been lost with this host


@dataclass
class Transaction:
    machines: dict[tuple[str, str], Machine] = field(default_factory=dict)  # by role and host
    told: set[tuple[str, str]] = field(default_factory=set)  # by any agent of that role
    blockers: set[int] = field(default_factory=set)  # who had a lock of its session meanwhile
    refused_locked: bool = False

    def at(self, role: str) -> list[Machine]:
        return [m for (r, _), m in self.machines.items() if r == role]

    @property
    def active(self) -> bool:
        """Its left anchor lives, and has not given up or finished: leases do not run out."""
        return any(not m.gone and m.state not in ENDS | {"old_path_gone"} for m in self.at(LEFT))


class Replay:
    """Takes events in the order of their times.

    `slack_ns`: an agent tells after it has done, and on two processors the later of two may be told first; by so much.
    """

    def __init__(self, slack_ns: int = 0) -> None:
        self.slack_ns = slack_ns
        self.events = 0
        self.transactions: dict[int, Transaction] = defaultdict(Transaction)
        self._holders: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))  # session, host -> who has locks
        self._joined: dict[str, set[str]] = {}  # sessions that a proxy has joined, itself among them
        self._lost: set[str] = set()  # sessions without a host that they need
        self._early: list[tuple[Event, NotAllowed]] = []

    def take(self, event: Event) -> None:
        """NotAllowed if no model has this transition."""
        if event.kind == "event_lost":
            raise Lost(f"{event.host} had no room for its events at {event.time_ns} ns")
        if event.kind == "spliced":
            self._join(event.session, f"{event.value:016x}")
        if event.kind == "session_lost":
            self._lose(event)
        if event.kind not in _KINDS:
            return
        self.events += 1
        for early, why in self._early:
            if event.time_ns - early.time_ns > self.slack_ns:
                raise why
        try:
            self._step(event)
        except NotAllowed as why:
            if not self.slack_ns:
                raise
            self._early.append((event, why))
            return
        self._retry()

    def _same(self, session: str) -> set[str]:
        """The names that a session has: more than one if a proxy has joined it to another."""
        return self._joined.get(session, {session})

    def _join(self, one: str, other: str) -> None:
        both = self._same(one) | self._same(other)
        self._joined.update(dict.fromkeys(both, both))

    def _lose(self, event: Event) -> None:
        """What was under way in the session need not end, and nobody at this host keeps a lock for ever."""
        self._lost |= self._same(event.session)
        for transaction in self.transactions.values():
            for m in transaction.machines.values():
                m.gone |= m.host == event.host and m.session in self._lost

    def _retry(self) -> None:
        """What came too early may be allowed now."""
        for early in list(self._early):
            try:
                self._step(early[0])
            except NotAllowed:
                continue
            self._early.remove(early)
            return self._retry()

    def _step(self, event: Event) -> None:
        transaction, role = self.transactions[event.txid], role_of(event)
        machine = transaction.machines.get((role, event.host)) or Machine(event.host, event.session, role)
        after = _STEPS.get((role, machine.state, event.kind))
        if after is None:
            raise NotAllowed(f"{event}: the model has no such transition of the {role} in state {machine.state}")
        if machine.state == BEGIN and role != BETWEEN and transaction.at(role):
            raise NotAllowed(f"{event}: {transaction.at(role)[0].host} is the {role} already, in state {after}")
        for other, told in _NEEDS[role, event.kind]:
            if (other, told) not in transaction.told:
                raise NotAllowed(f"{event}: allowed in state {machine.state} only after {told} at the {other}")
        for other, told in _NEVER[role, event.kind]:
            if (other, told) in transaction.told:
                raise NotAllowed(f"{event}: not allowed in state {machine.state} after {told} at the {other}")
        if role == LEFT and event.kind == "old_path_gone":
            for m in transaction.at(BETWEEN):
                if m.state in LEASED:
                    raise NotAllowed(f"{event}: not while {m.host}, which should have left, is in state {m.state}")
        self._locks(event, transaction, machine, after)
        transaction.machines[role, event.host] = machine
        transaction.told.add((role, event.kind))
        machine.state, machine.last = after, event

    def _locks(self, event: Event, transaction: Transaction, machine: Machine, after: str) -> None:
        """Mutual exclusion; and who is refused as locked must have met somebody."""
        here = self._holders[event.session][event.host]
        if after in HOLDING[machine.role]:
            for txid in here - {event.txid}:
                if self.transactions[txid].active:
                    held = [m.state for m in self.transactions[txid].machines.values() if m.host == event.host]
                    raise NotAllowed(f"{event}: {txid:08x} has the lock of that subsession, in state {' and '.join(held)}")
                here.discard(txid)  # its lease has run out
            here.add(event.txid)
            self._meet(event)
        elif machine.role != RIGHT:
            here.discard(event.txid)
        if event.kind == "lock_refused" and event.value == REFUSED_LOCKED:
            transaction.refused_locked = True
            if not transaction.blockers:
                raise NotAllowed(f"{event}: refused as locked in state {machine.state}, and nobody else has had a lock")

    def _meet(self, event: Event) -> None:
        """Who has a lock of the session now is who this transaction may be refused for, and the other way round."""
        met = {txid for name in self._same(event.session) for here in self._holders[name].values() for txid in here}
        self.transactions[event.txid].blockers |= met - {event.txid}
        for txid in met - {event.txid}:
            self.transactions[txid].blockers.add(event.txid)

    def end(self) -> None:
        """NotAllowed if something has not ended, or if of contenders none has won."""
        for _, why in self._early:
            raise why
        for txid, transaction in self.transactions.items():
            for m in transaction.machines.values():
                ended = m.state in ENDS or (m.role == BETWEEN and m.state not in LEASED)
                lease = m.role != LEFT and not transaction.active and m.state in LEASED
                if not ended and not lease and m.session not in self._lost:
                    raise NotAllowed(f"end of the run: no end after {m.last}, {m.role}, in state {m.state}")
            if transaction.refused_locked and not self._somebody_won(txid):
                raise NotAllowed(f"end of the run: {txid:08x} and all whom it met were refused as locked, in state lock_refused")

    def _somebody_won(self, txid: int) -> bool:
        seen, look = {txid}, [txid]
        while look:
            transaction = self.transactions[look.pop()]
            if not transaction.refused_locked:
                return True
            look += transaction.blockers - seen
            seen |= transaction.blockers
        return False


def of_json(host: str, line: dict[str, Any]) -> Event | None:
    """A line of an agent's stream (`dysco events`); None if it is not the data path's."""
    if "txid" not in line:
        return None
    return Event(line["ts_ns"], host, line["event"], line["session"], line["txid"], line["value"], line["side"])


def replay(events: Iterable[Event], slack_ns: int = 0) -> Replay:
    """Checks a whole run; the events of all agents, in any order."""
    run = Replay(slack_ns)
    for event in sorted(events, key=lambda e: e.time_ns):
        run.take(event)
    run.end()
    return run


def documented() -> str:
    """TABLE, RULES and NEVER_AFTER as docs/verification.md has them."""
    lines = ["| agent | state | event | then | model |", "| --- | --- | --- | --- | --- |"]
    for t in TABLE:
        model = f"`{t.file}`: `{t.inline}`" if t.file else "not in it"
        lines.append(f"| {t.role} | {', '.join(t.before)} | `{t.event}` | {t.after} | {model} |")
    lines += ["", "| event | only after |", "| --- | --- |"]
    lines += [f"| `{event}` at the {role} | `{told}` at the {other} |" for role, event, other, told in RULES]
    lines += ["", "| event | never after |", "| --- | --- |"]
    lines += [f"| `{event}` at the {role} | `{told}` at the {other} |" for role, event, other, told in NEVER_AFTER]
    return "\n".join(lines).replace("at the between", "between")
