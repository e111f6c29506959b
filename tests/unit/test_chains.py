# SPDX-License-Identifier: Apache-2.0
"""Who leads a change: followed over described sessions, against chains computed by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysco_ns.policy.chains import BadChange, Change, plan, walk

BOXES = [f"mb{i}" for i in range(1, 7)]


class Hosts:
    """Agents that describe one session along a chain; the address of a host is its name in capitals."""

    def __init__(self, hosts, spliced=None):
        self.described = {}
        session = "a"
        for i, host in enumerate(hosts):
            left, right = (hosts[i - 1].upper() if i else None), (hosts[i + 1].upper() if i + 1 < len(hosts) else None)
            known = {"left": session, "right": session}
            own = {"id": session, "known_as": known, "neighbours": {"left": left, "right": right}, "spliced_to": None}
            self.described[host] = {session: own}
            if host == spliced:
                own |= {"neighbours": {"left": left, "right": None}, "spliced_to": "b"}
                session = "b"
                known = {"left": "b", "right": "b"}
                other = {"id": "b", "known_as": known, "neighbours": {"left": None, "right": right}, "spliced_to": "a"}
                self.described[host]["b"] = other

    def sessions(self, host):
        return self.described[host]

    def host_of(self, address):
        return address.lower() if address.lower() in [*self.described, *BOXES] else None

    def address(self, host):
        return host.upper()


def after(chain, steps):
    """The chain that carrying out the steps gives."""
    for step in steps:
        left = chain.index(step.host)
        r = step.request
        if "insert" in r:
            chain = chain[: left + 1] + r["insert"] + chain[left + 1 :]
        elif "chain" in r:
            right = next(i for i, h in enumerate(chain) if h.upper() == r["until"])
            chain = chain[: left + 1] + r["chain"] + chain[right:]
        else:
            ((old, new),) = r["replace"].items() if "replace" in r else [(r["remove"], [])]
            assert chain[left + 1].upper() == old
            chain = chain[: left + 1] + new + chain[left + 2 :]
    return [h.lower() for h in chain]


def steps_for(hosts, change, asked="client", spliced=None):
    network = Hosts(hosts, spliced)
    return plan(network, walk(network, asked, next(iter(network.sessions(asked)))), change, asked)


@pytest.mark.parametrize("asked", ["client", "mb1", "mb2", "server"])
def test_a_session_is_followed_from_any_of_its_agents(asked):
    hosts = ["client", "mb1", "mb2", "server"]
    network = Hosts(hosts)
    assert [p.host for p in walk(network, asked, "a")] == hosts


@pytest.mark.parametrize("asked", ["client", "proxy", "server"])
def test_a_spliced_proxy_is_crossed_and_changes_the_session_id(asked):
    network = Hosts(["client", "mb1", "proxy", "server"], spliced="proxy")
    places = walk(network, asked, next(iter(network.sessions(asked))))
    assert [(p.host, p.session) for p in places] == [("client", "a"), ("mb1", "a"), ("proxy", "b"), ("server", "b")]


def test_the_left_neighbour_leads():
    (step,) = steps_for(["client", "mb1", "mb2", "server"], Change(remove="mb2"))
    assert (step.host, step.request) == ("mb1", {"remove": "MB2"})
    (step,) = steps_for(["client", "mb1", "server"], Change(insert=("mb5",), before="server"))
    assert (step.host, step.request) == ("mb1", {"insert": ["MB5"]})
    (step,) = steps_for(["client", "mb1", "server"], Change(replace=("mb1", ("mb2", "mb3"))), asked="mb1")
    assert (step.host, step.request) == ("client", {"replace": {"MB1": ["MB2", "MB3"]}})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (Change(remove="mb3"), "not on the session's chain"),
        (Change(remove="server"), "an end of the session"),
        (Change(insert=("mb1",)), "on the chain already"),
        (Change(insert=("mb3",), after="server"), "outside the session"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_with_the_chain(change, why):
    with pytest.raises(BadChange, match=why):
        steps_for(["client", "mb1", "server"], change)


@given(st.permutations(BOXES), st.permutations(BOXES), st.integers(0, 6), st.integers(0, 6))
def test_any_chain_becomes_any_other_and_no_middlebox_is_on_both_paths(before, wanted, n, m):
    hosts, wanted = ["client", *before[:n], "server"], wanted[:m]
    steps = steps_for(hosts, Change(chain=tuple(wanted)))
    assert after(hosts, steps) == ["client", *wanted, "server"]
    assert len(steps) <= 2
    chain = hosts
    for step in steps:
        assert not set(step.request["chain"]) & {h.upper() for h in chain}
        chain = after(chain, [step])
