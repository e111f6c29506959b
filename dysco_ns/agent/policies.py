# SPDX-License-Identifier: Apache-2.0
"""The policies of one agent: predicate on the SYN, and the middleboxes of the chain (paper II-B)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from dysco_ns.agent.core import MAX_POLICIES
from dysco_ns.agent.filters import BadFilter, compile_filter
from dysco_ns.agent.types import BadType, Types, TypeTable

MAX_MIDDLEBOXES = 8
ON_NO_AGENT = ("fail", "bypass")


class BadPolicy(Exception):
    """A policy that cannot be taken; says why."""


class PolicyTable(TypeTable, Protocol):
    def put_policies(self, policies: Sequence[dict[str, Any]]) -> None: ...


@dataclass
class Policy:
    id: int
    filter: str
    chain: list[str]
    on_no_agent: str = "fail"
    ends_at: str = ""  # an edge: the last agent, for a server that has none
    insns: list[dict[str, int]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "insns"}


def resolve(host: str, names: Mapping[str, str]) -> str:
    """The address of a middlebox given by address or by name.  BadPolicy for an unknown host."""
    if host in names:
        return names[host]
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        known = ", ".join(sorted(names)) or "none"
        raise BadPolicy(f"unknown host '{host}': neither an IPv4 address nor one of the names ({known})") from None


class Policies:
    """Kept here in order, and in the core's table; existing sessions keep their chain."""

    def __init__(self, table: PolicyTable, names: Mapping[str, str], on_change: Callable[[], None], path: Path) -> None:
        self._table, self._names, self._on_change, self._path = table, names, on_change, path
        self.policies: list[Policy] = []
        self.types = Types(table)
        self._next_id = 1

    def make(self, request: Mapping[str, Any]) -> Policy:
        """A checked policy from a request, not yet in force.  BadPolicy says what is wrong."""
        try:
            insns = compile_filter(str(request["filter"]))
        except KeyError:
            raise BadPolicy("a policy needs a filter") from None
        except BadFilter as error:
            raise BadPolicy(str(error)) from error
        edge = [str(request["ends_at"])] if request.get("ends_at") else []
        hosts = [str(h) for h in request.get("chain", [])] + edge
        if len(hosts) > MAX_MIDDLEBOXES:
            raise BadPolicy(f"{len(hosts)} middleboxes in one chain: {MAX_MIDDLEBOXES} are the limit")
        chain = [host if self.types.slot(host) is not None else resolve(host, self._names) for host in hosts]
        for host in chain:
            if chain.count(host) > 1:
                raise BadPolicy(f"middlebox {host} occurs twice in the chain: an address may occur once")
        how = str(request.get("on_no_agent", "fail"))
        if how not in ON_NO_AGENT:
            raise BadPolicy(f"on_no_agent '{how}': use fail or bypass")
        ends_at = chain.pop() if edge else ""
        policy = Policy(self._next_id, str(request["filter"]), chain, how, ends_at, insns)
        self._next_id += 1
        return policy

    def restore(self) -> None:
        """Puts into force what an earlier daemon of this namespace has kept."""
        kept = self.restore_types()
        self.policies = [replace(self.make(request), id=request["id"]) for request in kept.get("policies", ())]
        self._next_id = 1 + max((p.id for p in self.policies), default=0)
        self._write()

    def restore_types(self) -> dict[str, Any]:
        """The types alone; returns all that was kept, empty if nothing was."""
        kept: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        for t in kept.get("types", ()):
            self.types.set(t["name"], t["members"], t["choose"])
        return kept

    def add(self, request: Mapping[str, Any]) -> int:
        policy = self.make(request)
        self._check_room(len(self.policies) + 1)
        self.policies.append(policy)
        self._write()
        return policy.id

    def remove(self, number: int) -> None:
        if all(p.id != number for p in self.policies):
            raise BadPolicy(f"no policy {number} here (`dysco policy list` shows them)")
        self.policies = [p for p in self.policies if p.id != number]
        self._write()

    def apply(self, requests: Sequence[Mapping[str, Any]]) -> list[int]:
        """Replaces all policies by these, or none if one of them is wrong."""
        fresh = [self.make(r) for r in requests]
        self._check_room(len(fresh))
        self.policies = fresh
        self._write()
        return [p.id for p in fresh]

    def set_type(self, name: str, members: list[str], choose: str) -> None:
        self.types.set(name, members, choose)
        self._keep()

    def remove_type(self, name: str) -> None:
        users = [str(p.id) for p in self.policies if name in p.chain]
        if users:
            raise BadType(f"type '{name}' is used by policy {', '.join(users)}: remove that first")
        self.types.remove(name)
        self._keep()

    def _check_room(self, count: int) -> None:
        if count > MAX_POLICIES:
            raise BadPolicy(f"{count} policies: {MAX_POLICIES} are the limit at one agent")

    def _write(self) -> None:
        self._table.put_policies([self._fields(p) for p in self.policies])
        self._on_change()
        self._keep()

    def _fields(self, p: Policy) -> dict[str, Any]:
        chain = p.chain + [p.ends_at] * bool(p.ends_at)
        slots = [self.types.slot(host) for host in chain]
        return {
            "id": p.id,
            "insns": len(p.insns),
            "chain_length": len(chain),
            "on_no_agent": ON_NO_AGENT.index(p.on_no_agent),
            "ends": int(bool(p.ends_at)),
            "chain": ["0.0.0.0" if s is not None else h for s, h in zip(slots, chain, strict=True)],
            "type": bytes(0 if s is None else s + 1 for s in slots),
            "filter": p.insns,
        }

    def _keep(self) -> None:
        kept = {"types": [asdict(t) for t in self.types.all], "policies": [p.as_json() for p in self.policies]}
        self._path.write_text(json.dumps(kept))


class _NoTable:
    """For policies that are only checked and kept."""

    def put_policies(self, policies: Sequence[dict[str, Any]]) -> None: ...

    def set_type(self, slot: int, fields: dict[str, Any]) -> None: ...

    def member_sessions(self) -> dict[str, int]:
        return {}


def preload(path: Path, requests: Sequence[Mapping[str, Any]]) -> None:
    """Makes these the policies with which the next daemon starts, or none if one is wrong; types that were kept stay."""
    policies = Policies(_NoTable(), {}, lambda: None, path)
    policies.restore_types()
    policies.apply(requests)
