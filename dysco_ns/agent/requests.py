# SPDX-License-Identifier: Apache-2.0
"""What can be asked of an agent through its socket: one JSON object a line, one answer a line."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dysco_ns.agent import moves, view
from dysco_ns.agent.changes import DEFAULT_TIMEOUT_S, MISFIT, Misfit, Patience, change_session
from dysco_ns.agent.domains import BadDomain
from dysco_ns.agent.filters import BadFilter, Matcher
from dysco_ns.agent.leader import CONTROL_RIGHT_OF, REASONS, RETRY_HELPS, Outcome
from dysco_ns.agent.migration import Migration, NoState, export_state, import_state
from dysco_ns.agent.policies import MAX_MIDDLEBOXES, BadPolicy, resolve
from dysco_ns.agent.types import BadType

if TYPE_CHECKING:
    from dysco_ns.agent.daemon import Daemon

Json = dict[str, Any]
AT_ONCE = 16  # reconfigurations that one request keeps under way
MAX_RETRIES = 20
LOOK_S = 0.02
MOST_S = 366 * 86400.0  # of any time that a request names
MOST_WINDOW = 1 << 30  # bytes: TCP has no larger one (RFC 7323)
# what comes of values of another type or size than a request has
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, struct.error)


class Refused(Exception):
    """A request that is not carried out: one line, and whether trying again makes sense."""

    def __init__(self, message: str, retry: bool = False, **fields: Any) -> None:
        super().__init__(message)
        self.retry, self.fields = retry, fields


def parse(line: bytes) -> Json:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return request if isinstance(request, dict) else {}


async def answer(daemon: Daemon, request: Json) -> Json:
    """The reply to a request; never raises for what a client has sent."""
    handler = HANDLERS.get(str(request.get("op")))
    try:
        if not handler:
            raise Refused(f"unknown request '{request.get('op')}': one of {', '.join(sorted(HANDLERS))}")
        return {"ok": True, **(await handler(daemon, request))}
    except (BadPolicy, BadFilter, BadDomain, BadType, NoState) as error:
        return _no(str(error))
    except Refused as error:
        return _no(str(error), error.retry, **error.fields)
    except MALFORMED as error:
        return _no(f"malformed request: {error!r}")


def _no(why: str, retry: bool = False, **fields: Any) -> Json:
    """One line, whatever was in the request."""
    return {"ok": False, "error": " ".join(why.split()), "retry": retry, **fields}


def _seconds(request: Json, name: str, usual: float = 0.0) -> float:
    """A time that a request names.  Refused if it makes no sense."""
    value = float(request.get(name, usual))
    if not 0 <= value <= MOST_S:
        raise Refused(f"{name} {value:g}: a number of seconds from 0 to {MOST_S:g}")
    return value


async def _ping(daemon: Daemon, _: Json) -> Json:
    return {
        "pid": os.getpid(),
        "netns": daemon.namespace,
        "host": daemon.settings.name,
        "interfaces": [{"name": i.name, "address": i.address} for i in daemon.interfaces],
        "hmac": bool(daemon.settings.key),
        "throttle": daemon.throttle,
        "tag": "option" if daemon.tag_option else "mark",
        "heartbeat_s": daemon.expiry.beat_s,
    }


async def _policy_add(daemon: Daemon, request: Json) -> Json:
    return {"id": daemon.policies.add(request)}


async def _policy_list(daemon: Daemon, _: Json) -> Json:
    return {"policies": [p.as_json() for p in daemon.policies.policies]}


async def _policy_remove(daemon: Daemon, request: Json) -> Json:
    daemon.policies.remove(int(request["id"]))
    return {}


async def _policy_apply(daemon: Daemon, request: Json) -> Json:
    return {"ids": daemon.policies.apply(list(request["policies"]))}


async def _sessions(daemon: Daemon, _: Json) -> Json:
    described = [view.describe(daemon.core, nonce, s) for nonce, s in daemon.core.sessions()]
    return {"schema": view.SCHEMA, "sessions": described}


async def _stats(daemon: Daemon, _: Json) -> Json:
    core = daemon.core
    return {"counters": core.counters(), "tables": core.table_sizes(), "data_path": core.programs.statistics()}


async def _key_set(daemon: Daemon, request: Json) -> Json:
    """Makes a key valid under a number; with `use`, also signs with it."""
    use = bool(request.get("use"))
    signing = daemon.domains.set_key(request.get("domain"), int(request["number"]), Path(request["file"]), use)
    daemon.configure()
    return {"signing": signing}


async def _key_drop(daemon: Daemon, request: Json) -> Json:
    return {"signing": daemon.domains.drop_key(request.get("domain"), int(request["number"]))}


async def _type_set(daemon: Daemon, request: Json) -> Json:
    name, names = str(request["name"]), daemon.settings.names
    if name in names:
        raise Refused(f"type {name}: a host has that name")
    members = [resolve(str(host), names) for host in request["members"]]
    daemon.policies.set_type(name, members, str(request.get("choose", "round-robin")))
    return {}


async def _type_list(daemon: Daemon, _: Json) -> Json:
    return {"types": daemon.policies.types.as_json()}


async def _type_remove(daemon: Daemon, request: Json) -> Json:
    daemon.policies.remove_type(str(request["name"]))
    return {}


async def _tune(daemon: Daemon, request: Json) -> Json:
    """heartbeat_s: seconds of silence, 0 never; throttle: most bytes of window that senders here are shown in a
    reconfiguration, null no limit;
    linger_s: most seconds for which a session that is over stays in the tables;
    tag: option if this middlebox takes packets to user space, else mark."""
    beat, linger = _seconds(request, "heartbeat_s"), _seconds(request, "linger_s")
    throttle, tag = request.get("throttle"), request.get("tag")
    if throttle is not None and not 0 <= int(throttle) <= MOST_WINDOW:
        raise Refused(f"throttle {throttle}: bytes of a window, 0 to {MOST_WINDOW}")
    if "tag" in request and tag not in ("mark", "option"):
        raise Refused(f"tag {tag}: use mark or option")
    if "heartbeat_s" in request:
        daemon.expiry.ask_after(beat)
    if "linger_s" in request:
        daemon.expiry.linger(linger)
    if "throttle" in request:
        daemon.throttle = None if throttle is None else int(throttle)
    if "tag" in request:
        daemon.tag_option = tag == "option"
    daemon.configure()
    return {}


async def _stop(daemon: Daemon, _: Json) -> Json:
    asyncio.get_running_loop().call_later(0.05, daemon.stop)
    return {}


# ---- splice ----


async def _splice(daemon: Daemon, request: Json) -> Json:
    """Joins a proxy's two sessions; with `remove`, asks the left neighbour to take this middlebox out."""
    inner, outer = request["in"], request["out"]
    core = daemon.core
    arriving = core.session_of((inner[2], inner[3]), (inner[0], inner[1]))
    leaving = core.session_of((outer[0], outer[1]), (outer[2], outer[3]))
    if not arriving or not leaving:
        which = "in" if not arriving else "out"
        raise Refused(f"the '{which}' socket's session is not a Dysco session: no policy matched its SYN")
    session = core.session(arriving)
    if request.get("remove", True) and session and session["flags"] & view.NAT:
        raise Refused(REASONS["nat"])  # before the sessions are joined: a proxy that is refused promises nothing
    deltas = [int(request.get("delta_ab", 0)) & 0xFFFFFFFF, int(request.get("delta_ba", 0)) & 0xFFFFFFFF]
    reason = core.command("splice", nonce=arriving, peer=leaving, delta=deltas)
    joined = reason == "not"
    if joined and request.get("remove", True):
        reason = daemon.triggers.take_out(arriving)
    if reason != "not":
        raise Refused(REASONS.get(reason, reason), reason in RETRY_HELPS, joined=joined)
    return {"session": f"{arriving:016x}", "peer": f"{leaving:016x}"}


async def _next(daemon: Daemon, request: Json) -> Json:
    """The chain of a session that a local program is about to open."""
    src, sport, dst, dport = request["tuple"]
    chain = [resolve(str(host), daemon.settings.names) for host in request["chain"]]
    if len(chain) > MAX_MIDDLEBOXES:
        raise Refused(f"{len(chain)} middleboxes: {MAX_MIDDLEBOXES} are the limit")
    key = {"src": src, "sport": int(sport), "dst": dst, "dport": int(dport)}
    reason = daemon.core.command("next", tuple=key, chain=chain, chain_length=len(chain))
    if reason != "not":
        raise Refused(REASONS.get(reason, reason), reason in RETRY_HELPS)
    return {}


# ---- reconfigure ----


def _one_selected(daemon: Daemon, session: str) -> int:
    nonce = int(session, 16)
    s = daemon.core.session(nonce)
    if not s:
        raise Refused(f"no session {session} here (`dysco sessions` lists them)")
    if s["over_ns"]:
        raise Refused(f"session {session} is over")
    return nonce


def _selected(daemon: Daemon, request: Json, leads: bool) -> list[int]:
    """The sessions that session, match or all mean; `leads`: only those that go on to the right of this agent."""
    if "session" in request:
        return [_one_selected(daemon, str(request["session"]))]
    if "sessions" in request:
        return [int(str(session), 16) for session in request["sessions"]]
    matches = Matcher(str(request["match"])) if "match" in request else None
    if not matches and not request.get("all"):
        raise Refused("say which sessions: session, match or all")
    found = []
    for nonce, s in daemon.core.sessions():
        t = s["right_tuple"]
        if s["over_ns"] or (leads and not s["right_sub"]["dport"]):
            continue
        packed = socket.inet_aton(t["src"]), socket.inet_aton(t["dst"]), t["sport"], t["dport"]
        if not matches or matches(*packed):
            found.append(nonce)
    return found


@dataclass(frozen=True)
class Change:
    """What becomes of the segment right of an agent: `leaving` must be its right neighbour; `until` names the right
    anchor where it is not the neighbour (or the one right of who leaves)."""

    chain: list[str]
    leaving: str | None = None
    until: str | None = None

    def command(self, s: Json) -> Json:
        """The fields of struct command for a session.  Misfit if the session does not lie as the change assumes."""
        neighbour = s["right_sub"]["dst"]
        if self.leaving and self.leaving != neighbour:
            raise Misfit(f"{self.leaving} {MISFIT}, {neighbour} is: ask the host left of it (--at)")
        chain = {"chain": self.chain, "chain_length": len(self.chain)}
        if self.until or not self.leaving:
            return {"right_anchor": self.until or neighbour, **chain}
        return {"right_anchor": self.leaving, "flags": CONTROL_RIGHT_OF, **chain}


def _change(daemon: Daemon, request: Json) -> Change:
    """remove: M | replace: {M: [...]} | insert: [...] right of this agent | chain: [...], until: right anchor."""
    names = daemon.settings.names

    def addresses(hosts: Any) -> list[str]:
        found = [daemon.policies.types.pick(str(h)) or resolve(str(h), names) for h in hosts]
        if len(found) > MAX_MIDDLEBOXES or len(set(found)) < len(found):
            raise Refused(f"a chain has at most {MAX_MIDDLEBOXES} middleboxes, each once")
        return found

    if "remove" in request:
        return Change([], leaving=resolve(str(request["remove"]), names))
    if "replace" in request:
        ((old, new),) = request["replace"].items()
        return Change(addresses(new), leaving=resolve(str(old), names))
    if "insert" in request:
        return Change(addresses(request["insert"]))
    if "chain" in request:
        return Change(addresses(request["chain"]), until=resolve(str(request["until"]), names))
    raise Refused("say what to change: remove, replace, insert, or chain and until")


async def _reconfigure(daemon: Daemon, request: Json) -> Json:
    nonces, change = _selected(daemon, request, leads=True), _change(daemon, request)
    migration = Migration(*map(str, request["migrate"])) if "migrate" in request else None
    gate, patience = asyncio.Semaphore(AT_ONCE), _patience(request)

    async def one(nonce: int) -> Outcome:
        async with gate:
            return await change_session(daemon, nonce, change.command, patience, migration)

    work = [asyncio.create_task(one(nonce)) for nonce in nonces]
    if not request.get("wait", True):
        daemon.keep(work)
        return {"started": [f"{n:016x}" for n in nonces]}
    return {"results": [(await task).as_json() for task in work]}


def _patience(request: Json) -> Patience:
    """retries, retry_pause_s, timeout_s.  Refused if they make no sense."""
    usual = Patience()
    patience = Patience(
        int(request.get("retries", usual.retries)),
        _seconds(request, "retry_pause_s", usual.pause_s),
        _seconds(request, "timeout_s", usual.timeout_s),
    )
    if not (0 <= patience.retries <= MAX_RETRIES and patience.timeout_s > 0):
        raise Refused(f"retries are 0 to {MAX_RETRIES}, a time-out is more than 0")
    return patience


def _may_leave(s: Json | None) -> bool:
    """Whether this host is a middlebox of the session, by its arriving half if it terminates TCP."""
    return bool(s and s["left_sub"]["dport"] and (s["right_sub"]["dport"] or s["flags"] & view.SPLICED))


async def _leave(daemon: Daemon, request: Json) -> Json:
    """This middlebox asks its left neighbours to take it out of sessions; the answer says what came of it."""
    timeout = _patience(request).timeout_s

    async def one(nonce: int) -> Json:
        reason = daemon.triggers.take_out(nonce)
        until = time.monotonic() + timeout
        while reason == "not" and not (daemon.core.session(nonce) or {"flags": view.LEFT_CHAIN})["flags"] & view.LEFT_CHAIN:
            reason = "timeout" if time.monotonic() > until else "not"
            await asyncio.sleep(LOOK_S)
        outcome = Outcome(nonce, "done") if reason == "not" else Outcome(nonce, "refused", reason)
        return outcome.as_json()

    nonces = [n for n in _selected(daemon, request, leads=False) if _may_leave(daemon.core.session(n))]
    return {"results": await asyncio.gather(*(one(nonce) for nonce in nonces))}


async def _state_export(daemon: Daemon, request: Json) -> Json:
    return {"state": await asyncio.to_thread(export_state, _session(daemon, request))}


async def _state_import(daemon: Daemon, request: Json) -> Json:
    await asyncio.to_thread(import_state, _session(daemon, request), request["state"])
    return {}


def _session(daemon: Daemon, request: Json) -> Json:
    found = daemon.core.session(int(str(request["session"]), 16))
    if not found:
        raise Refused(f"no session {request['session']} here")
    return found


async def _move(daemon: Daemon, request: Json) -> Json:
    """All sessions of this host that use one of its addresses move to another."""
    old, new = str(request["from"]), str(request["to"])
    await asyncio.to_thread(daemon.look_around)
    own = [i.address for i in daemon.interfaces]
    for address in (old, new):
        if address not in own:
            raise Refused(f"{address} is not an address of this host: it has {', '.join(own)}")
    gate, timeout = asyncio.Semaphore(AT_ONCE), _seconds(request, "timeout_s", DEFAULT_TIMEOUT_S)

    async def one(nonce: int) -> Json:
        async with gate:
            return await moves.move(daemon, nonce, new, timeout)

    nonces = moves.candidates(daemon, old)
    await asyncio.to_thread(daemon.hops.ready, moves.neighbours(daemon, nonces), new)
    return {"results": await asyncio.gather(*(one(nonce) for nonce in nonces))}


async def _select(daemon: Daemon, request: Json) -> Json:
    """The IDs of the sessions that session, match or all mean; with `first`, of those that begin at this agent."""
    found = _selected(daemon, request, leads=False)
    if request.get("first"):
        found = [nonce for nonce in found if (s := daemon.core.session(nonce)) and s["flags"] & view.FIRST]
    return {"sessions": [f"{nonce:016x}" for nonce in found]}


HANDLERS: dict[str, Callable[[Daemon, Json], Awaitable[Json]]] = {
    "ping": _ping,
    "policy_add": _policy_add,
    "policy_list": _policy_list,
    "policy_remove": _policy_remove,
    "policy_apply": _policy_apply,
    "sessions": _sessions,
    "stats": _stats,
    "key_set": _key_set,
    "key_drop": _key_drop,
    "type_set": _type_set,
    "type_list": _type_list,
    "type_remove": _type_remove,
    "tune": _tune,
    "stop": _stop,
    "splice": _splice,
    "next": _next,
    "move": _move,
    "state_export": _state_export,
    "state_import": _state_import,
    "select": _select,
    "reconfigure": _reconfigure,
    "leave": _leave,
}
