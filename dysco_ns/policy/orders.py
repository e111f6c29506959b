# SPDX-License-Identifier: Apache-2.0
"""A change of many sessions, carried out: each step asked of the agent that must lead it, alike ones together."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dysco_ns.agent.changes import MISFIT
from dysco_ns.policy.chains import BadChange, Change, Step, plan, walk
from dysco_ns.policy.directory import Directory

AT_ONCE = 16  # sessions in one request: the answer to it moves the progress bar, and the slowest holds up no others
REQUESTS = 8  # under way together
PLANNED_ANEW = 3  # times, when other changes come first
Result = dict[str, Any]


class Orders:
    """The steps for the sessions that a user has selected at a host, or everywhere: then each agent selects among those
    that begin at it.  BadChange, UnknownHost, AgentRefused, NoAgent."""

    def __init__(self, at: str | None, selection: dict[str, Any], change: Change, everywhere: bool = False) -> None:
        self._directory, self._change = Directory(), change
        self.refused: list[Result] = []  # sessions that the change does not fit, beside others that it does
        self.selected: list[str] = []
        plans: list[list[Step]] = []
        for host in self._directory.agents() if everywhere else [at]:
            asked = self._directory.client(host).request("select", first=everywhere, **selection)["sessions"]
            self.selected += asked
            plans += self._plans(host or self._directory.here(), asked)
        if self.refused and not plans:
            raise BadChange(self.refused[0]["reason"])
        self._turns = _turns(plans)
        self.total = sum(map(len, self._turns))

    def _plans(self, host: str | None, sessions: list[str]) -> list[list[Step]]:
        change = self._change
        if host is None:  # no lab: only what this agent itself can lead
            return [[Step("", session, direct(change))] for session in sessions]
        plans = []
        for session in sessions:
            try:
                plans.append(plan(self._directory, walk(self._directory, host, session), change, host))
            except BadChange as error:  # it may have ended since it was selected
                self.refused.append({"session": session, "outcome": "refused", "reason": str(error), "retry": False})
        return plans

    def carry_out(self, how: dict[str, Any], advance: Callable[[int], None]) -> list[Result]:
        """The outcome for each session: of its last step, or of the first that failed.  Where another change has come first, so
        that somebody else must lead now, it is planned anew."""
        outcomes: dict[str, Result] = {}
        led_by: dict[str, str] = {}

        def ask(batch: list[Step]) -> None:
            for step, result in zip(batch, self._ask(batch, how), strict=True):
                outcomes[step.session], led_by[step.session] = result, step.host
            advance(len(batch))

        def go(turns: list[list[Step]]) -> None:
            for turn in turns:
                todo = [step for step in turn if outcomes.get(step.session, {}).get("outcome", "done") == "done"]
                with ThreadPoolExecutor(REQUESTS) as pool:
                    list(pool.map(ask, _batches(todo)))  # raises the first error, if there was one

        go(self._turns)
        for _ in range(PLANNED_ANEW):
            moved = [session for session, result in outcomes.items() if MISFIT in result.get("reason", "") and led_by[session]]
            self._directory.look_again()
            anew = [steps for session in moved for steps in self._plans(led_by[session], [session])]
            for session in moved:
                del outcomes[session]
            go(_turns(anew))
        return list(outcomes.values()) + self.refused

    def _ask(self, batch: list[Step], how: dict[str, Any]) -> list[Result]:
        client = self._directory.client(batch[0].host or None)
        reply = client.request("reconfigure", sessions=[s.session for s in batch], **batch[0].request, **how)
        if "results" in reply:
            return list(reply["results"])
        return [{"session": session, "outcome": "started"} for session in reply["started"]]


def _turns(plans: list[list[Step]]) -> list[list[Step]]:
    """The first steps of all sessions, then the second ones, ..."""
    return [[steps[turn] for steps in plans if turn < len(steps)] for turn in range(max(map(len, plans), default=0))]


def direct(change: Change) -> dict[str, Any]:
    """The request to an agent that leads the change itself.  BadChange: only the whole chain tells who must."""
    if change.chain is not None or change.before or change.after or change.migrate:
        raise BadChange("--chain, --before, --after and --migrate need the other agents of the session: only in a running lab")
    if change.remove:
        return {"remove": change.remove}
    if change.replace:
        return {"replace": {change.replace[0]: list(change.replace[1])}}
    return {"insert": list(change.insert)}


def _batches(steps: list[Step]) -> list[list[Step]]:
    alike: dict[str, list[Step]] = {}
    for step in steps:
        alike.setdefault(json.dumps([step.host, step.request]), []).append(step)
    return [same[i : i + AT_ONCE] for same in alike.values() for i in range(0, len(same), AT_ONCE)]
