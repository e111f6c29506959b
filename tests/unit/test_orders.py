# SPDX-License-Identifier: Apache-2.0
"""Orders for many sessions: selected at one host or everywhere, asked in batches, and what does not fit stops no others."""

import threading

import pytest

from dysco_ns.agent.changes import MISFIT
from dysco_ns.policy import orders
from dysco_ns.policy.chains import BadChange, Change
from dysco_ns.policy.orders import AT_ONCE, Orders

ENDS = ("a", "b")  # hosts at which sessions begin
REMOVE = Change(remove="mb1")


class Agents:
    """A directory of two clients, a middlebox and a server, whose agents do all that they are asked."""

    def __init__(self, sessions, gone=()):
        self.own = {host: [f"{host}{i}" for i in range(sessions)] for host in ENDS}
        self.gone, self.asked, self.lock = set(gone), [], threading.Lock()

    def agents(self):
        return ["a", "b", "mb1", "server"]

    def here(self):
        return None

    def address(self, host):
        return host

    def host_of(self, address):
        return address

    def look_again(self):
        pass

    def sessions(self, host):
        found = {}
        for end, ids in self.own.items():
            for s in ids:
                left = {"a": None, "b": None, "mb1": end, "server": "mb1"}[host]
                right = {"a": "mb1", "b": "mb1", "mb1": "server", "server": None}[host]
                if s not in self.gone and (host not in ENDS or host == end):
                    known, neighbours = {"left": s, "right": s}, {"left": left, "right": right}
                    found[s] = {"id": s, "known_as": known, "neighbours": neighbours, "spliced_to": None}
        return found

    def client(self, host):
        agents = self

        class Client:
            def request(self, op, **fields):
                if op == "select":
                    hosts = [host] if fields["first"] else ENDS
                    return {"sessions": [s for h in hosts for s in agents.own.get(h, [])]}
                with agents.lock:
                    agents.asked.append((host, fields))
                return {"results": [{"session": s, "outcome": "done"} for s in fields["sessions"]]}

        return Client()


@pytest.fixture
def agents(monkeypatch):
    def install(sessions, gone=()):
        made = Agents(sessions, gone)
        monkeypatch.setattr(orders, "Directory", lambda: made)
        return made

    return install


def test_everywhere_each_session_is_changed_once_by_the_agent_left_of_the_change(agents):
    made, advanced = agents(40), []
    results = Orders(None, {"all": True}, REMOVE, everywhere=True).carry_out({"wait": True}, advanced.append)
    assert sorted(r["session"] for r in results) == sorted(made.own["a"] + made.own["b"])
    assert sum(advanced) == 80 and max(advanced) <= AT_ONCE
    for host, fields in made.asked:
        assert fields["remove"] == "mb1" and set(fields["sessions"]) <= set(made.own[host])


def test_a_middlebox_that_is_asked_about_all_its_sessions_reaches_every_left_neighbour(agents):
    made = agents(5)
    results = Orders("mb1", {"all": True}, Change(replace=("mb1", ("mb2",)))).carry_out({}, lambda n: None)
    assert len(results) == 10 and {host for host, _ in made.asked} == {"a", "b"}


def test_a_session_that_has_ended_meanwhile_does_not_stop_the_others(agents):
    agents(3, gone=["a1"])
    results = Orders(None, {"all": True}, REMOVE, everywhere=True).carry_out({}, lambda n: None)
    bad = [r for r in results if r["outcome"] != "done"]
    assert len(results) == 6 and [r["session"] for r in bad] == ["a1"] and "may be over" in bad[0]["reason"]


def test_a_change_that_fits_no_session_is_an_error(agents):
    agents(3)
    with pytest.raises(BadChange, match="mb9 is not on the session's chain"):
        Orders("a", {"all": True}, Change(remove="mb9"))


def test_the_first_error_of_an_agent_is_raised(agents, monkeypatch):
    made = agents(1)

    def broken(host):
        raise OSError(f"{host} is down")

    change = Orders("a", {"all": True}, REMOVE)
    monkeypatch.setattr(made, "client", broken)
    with pytest.raises(OSError, match="a is down"):
        change.carry_out({}, lambda n: None)


def test_a_change_that_another_has_overtaken_is_planned_for_the_chain_as_it_is_now(monkeypatch):
    """`a` was asked first; meanwhile `new` has come between it and mb1, and must lead."""

    class Changed(Agents):
        changed = False

        def look_again(self):
            self.changed = True

        def sessions(self, host):
            found = super().sessions(host) if host != "new" else super().sessions("mb1")
            for s in found.values() if self.changed else ():
                near = {"a": ("right", "new"), "new": ("left", "a"), "mb1": ("left", "new")}.get(host)
                s["neighbours"] |= {near[0]: near[1]} if near else {}
                s["neighbours"] |= {"right": "mb1"} if host == "new" else {}
            return found

        def client(self, host):
            there, agents = super().client(host), self

            class Client:
                def request(self, op, **fields):
                    reply = there.request(op, **fields)
                    if op == "reconfigure" and host == "a":
                        assert not agents.changed
                        misfit = {"outcome": "refused", "reason": f"mb1 {MISFIT}, new is"}
                        return {"results": [r | misfit for r in reply["results"]]}
                    return reply

            return Client()

    agents = Changed(3)
    monkeypatch.setattr(orders, "Directory", lambda: agents)
    results = Orders("a", {"all": True}, REMOVE).carry_out({}, lambda done: None)
    assert [r["outcome"] for r in results if r["session"].startswith("a")] == ["done"] * 3, results
    assert [host for host, _ in agents.asked if host != "b"] == ["a", "new"]
