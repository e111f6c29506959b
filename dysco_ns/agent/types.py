# SPDX-License-Identifier: Apache-2.0
"""Types of middleboxes: a name for several that do the same; each session gets one of them (paper II-B)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

CHOOSE = ("round-robin", "fewest")
MAX_TYPES, MAX_MEMBERS = 16, 16


class BadType(Exception):
    """A type that cannot be taken; says why."""


class TypeTable(Protocol):
    def set_type(self, slot: int, fields: dict[str, Any]) -> None: ...

    def member_sessions(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class MiddleboxType:
    """`members` are addresses; `choose`: by turns, or the one with the fewest sessions that begin at this agent."""

    name: str
    members: tuple[str, ...]
    choose: str = "round-robin"


class Types:
    """Those of one agent: a slot of the core's table for each, which policies refer to."""

    def __init__(self, table: TypeTable) -> None:
        self._table = table
        self._slots: list[MiddleboxType | None] = [None] * MAX_TYPES
        self._turn = 0

    @property
    def all(self) -> list[MiddleboxType]:
        return [t for t in self._slots if t]

    def slot(self, name: str) -> int | None:
        return next((i for i, t in enumerate(self._slots) if t and t.name == name), None)

    def set(self, name: str, members: list[str], choose: str) -> None:
        """Makes or changes a type: sessions from now on; those that run keep their middlebox.  BadType."""
        if choose not in CHOOSE:
            raise BadType(f"type {name}: choose '{choose}': use one of {', '.join(CHOOSE)}")
        if not 1 <= len(members) <= MAX_MEMBERS or len(set(members)) < len(members):
            raise BadType(f"type {name}: 1 to {MAX_MEMBERS} middleboxes, each once")
        slot = self.slot(name)
        if slot is None:
            slot = next((i for i, t in enumerate(self._slots) if t is None), None)
        if slot is None:
            raise BadType(f"type {name}: {MAX_TYPES} types are the limit at one agent")
        self._slots[slot] = MiddleboxType(name, tuple(members), choose)
        self._table.set_type(slot, {"members": len(members), "choose": CHOOSE.index(choose), "member": members})

    def remove(self, name: str) -> None:
        slot = self.slot(name)
        if slot is None:
            raise BadType(f"no type '{name}' here: {', '.join(t.name for t in self.all) or 'none is known'}")
        self._slots[slot] = None
        self._table.set_type(slot, {})

    def pick(self, name: str) -> str | None:
        """A member for a session that is reconfigured, as the core picks one for a new session; None: no such type."""
        slot = self.slot(name)
        kind = self._slots[slot] if slot is not None else None
        if kind is None:
            return None
        self._turn += 1
        turns = [kind.members[(self._turn + i) % len(kind.members)] for i in range(len(kind.members))]
        sessions: Mapping[str, int] = self._table.member_sessions() if kind.choose == "fewest" else {}
        return min(turns, key=lambda member: sessions.get(member, 0))

    def as_json(self) -> list[dict[str, Any]]:
        """With the number of live sessions of each member that begin at this agent."""
        sessions = self._table.member_sessions()
        return [{**asdict(t), "sessions": {m: sessions.get(m, 0) for m in t.members}} for t in self.all]
