# SPDX-License-Identifier: Apache-2.0
"""What can be asked of an agent through its socket: one JSON object a line, one answer a line."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from dysco_ns.agent import view
from dysco_ns.agent.core import new_txid
from dysco_ns.agent.filters import BadFilter, Matcher
from dysco_ns.agent.leader import CONTROL_RIGHT_OF, REASONS, RETRY_HELPS, Outcome
from dysco_ns.agent.policies import BadPolicy, resolve

if TYPE_CHECKING:
    from dysco_ns.agent.daemon import Daemon

Json = dict[str, Any]
AT_ONCE = 16  # reconfigurations that one request keeps under way
DEFAULT_TIMEOUT_S = 30.0


class Refused(Exception):
    """A request that is not carried out: one line, and whether trying again makes sense."""

    def __init__(self, message: str, retry: bool = False) -> None:
        super().__init__(message)
        self.retry = retry


def parse(line: bytes) -> Json:
    try:
        request = json.loads(line)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


async def answer(daemon: Daemon, request: Json) -> Json:
    """The reply to a request; never raises for what a client has sent."""
    handler = HANDLERS.get(str(request.get("op")))
    try:
        if not handler:
            raise Refused(f"unknown request '{request.get('op')}': one of {', '.join(sorted(HANDLERS))}")
        return {"ok": True, **(await handler(daemon, request))}
    except (BadPolicy, BadFilter) as error:
        return {"ok": False, "error": str(error), "retry": False}
    except Refused as error:
        return {"ok": False, "error": str(error), "retry": error.retry}
    except (KeyError, TypeError, ValueError, OSError) as error:
        return {"ok": False, "error": f"malformed request: {error!r}", "retry": False}


async def _ping(daemon: Daemon, _: Json) -> Json:
    return {
        "pid": os.getpid(),
        "netns": daemon.namespace,
        "host": daemon.settings.name,
        "interfaces": [{"name": i.name, "address": i.address} for i in daemon.interfaces],
        "hmac": bool(daemon.settings.key),
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
    return {"counters": daemon.core.counters()}


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
    deltas = [int(request.get("delta_ab", 0)) & 0xFFFFFFFF, int(request.get("delta_ba", 0)) & 0xFFFFFFFF]
    reason = core.command("splice", nonce=arriving, peer=leaving, delta=deltas)
    if reason == "not" and request.get("remove", True):
        reason = core.command("trigger", nonce=arriving, txid=new_txid())
    if reason != "not":
        raise Refused(REASONS.get(reason, reason), reason in RETRY_HELPS)
    return {"session": f"{arriving:016x}", "peer": f"{leaving:016x}"}


# ---- reconfigure ----


def _selected(daemon: Daemon, request: Json) -> list[int]:
    if "session" in request:
        nonce = int(str(request["session"]), 16)
        s = daemon.core.session(nonce)
        if not s:
            raise Refused(f"no session {request['session']} here (`dysco sessions` lists them)")
        if s["over_ns"]:
            raise Refused(f"session {request['session']} is over")
        return [nonce]
    matches = Matcher(str(request["match"])) if "match" in request else None
    if not matches and not request.get("all"):
        raise Refused("say which sessions: session, match or all")
    found = []
    for nonce, s in daemon.core.sessions():
        t = s["right_tuple"]
        if s["over_ns"] or not s["right_sub"]["dport"]:
            continue
        packed = socket.inet_aton(t["src"]), socket.inet_aton(t["dst"]), t["sport"], t["dport"]
        if not matches or matches(*packed):
            found.append(nonce)
    return found


def _change(daemon: Daemon, request: Json) -> Json:
    """The fields of struct command for the change that is asked for."""
    names = daemon.settings.names
    if "remove" in request:
        return {"right_anchor": resolve(str(request["remove"]), names), "flags": CONTROL_RIGHT_OF}
    raise Refused("say what to change: remove (insertion and replacement are not there yet)")


async def _reconfigure(daemon: Daemon, request: Json) -> Json:
    nonces, change = _selected(daemon, request), _change(daemon, request)
    gate = asyncio.Semaphore(AT_ONCE)
    timeout = float(request.get("timeout_s", DEFAULT_TIMEOUT_S))

    async def one(nonce: int) -> Outcome:
        async with gate:
            finished: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

            def end(outcome: Outcome) -> None:
                if not finished.done():
                    finished.set_result(outcome)

            daemon.reconfigure(nonce, change, end)
            try:
                return await asyncio.wait_for(finished, timeout)
            except TimeoutError:
                return Outcome(nonce, "failed", f"not finished after {timeout:g} s; it goes on")

    work = [asyncio.create_task(one(nonce)) for nonce in nonces]
    if not request.get("wait", True):
        return {"started": [f"{n:016x}" for n in nonces]}
    return {"results": [(await task).as_json() for task in work]}


HANDLERS: dict[str, Callable[[Daemon, Json], Awaitable[Json]]] = {
    "ping": _ping,
    "policy_add": _policy_add,
    "policy_list": _policy_list,
    "policy_remove": _policy_remove,
    "policy_apply": _policy_apply,
    "sessions": _sessions,
    "stats": _stats,
    "stop": _stop,
    "splice": _splice,
    "reconfigure": _reconfigure,
}
