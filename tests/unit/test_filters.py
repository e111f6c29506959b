# SPDX-License-Identifier: Apache-2.0
"""Policy predicates and batches."""

import socket

import pytest

from dysco_ns.agent.filters import BadFilter, Matcher, compile_filter
from dysco_ns.agent.policies import BadPolicy, Policies
from dysco_ns.agent.types import BadType


class Table:
    """Stands where the core's table is and keeps what was written."""

    def __init__(self):
        self.policies = []

    def put_policies(self, policies):
        self.policies = policies

    def set_type(self, slot, fields):
        self.type = (slot, fields)

    def member_sessions(self):
        return {"10.0.1.2": 3, "10.0.2.2": 1}


@pytest.fixture
def make(tmp_path):
    names = {"mb1": "10.0.1.2", "mb2": "10.0.2.2"}
    return lambda: Policies(Table(), names, lambda: None, tmp_path / "policies")


@pytest.fixture
def policies(make):
    return make()


def matches(expression, src, dst, sport, dport):
    return Matcher(expression)(socket.inet_aton(src), socket.inet_aton(dst), sport, dport)


def test_filter_matches_the_syn_of_a_session():
    assert matches("tcp dst port 5001", "10.0.0.1", "10.0.0.2", 40000, 5001)
    assert not matches("tcp dst port 5001", "10.0.0.1", "10.0.0.2", 5001, 40000)
    assert matches("src net 10.0.0.0/24 and tcp[tcpflags] & tcp-syn != 0", "10.0.0.1", "10.9.0.2", 1, 2)


def test_wrong_filter_is_refused_in_one_line():
    with pytest.raises(BadFilter, match="prt") as refused:
        compile_filter("tcp dst prt 80")
    assert "\n" not in str(refused.value)


def test_filter_that_is_too_long_is_refused():
    with pytest.raises(BadFilter, match="64 are the limit"):
        compile_filter(" or ".join(f"host 10.0.{i}.1" for i in range(40)))


def test_policy_resolves_names(policies):
    policies.add({"filter": "tcp", "chain": ["mb1", "10.9.9.9"]})
    assert policies.policies[0].chain == ["10.0.1.2", "10.9.9.9"]


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"filter": "tcp", "chain": ["nobody"]}, "unknown host 'nobody'"),
        ({"filter": "tcp", "chain": [f"10.0.0.{i}" for i in range(1, 10)]}, "8 are the limit"),
        ({"filter": "tcp", "chain": ["mb1", "10.0.1.2"]}, "occurs twice"),
        ({"chain": []}, "needs a filter"),
        ({"filter": "tcp", "on_no_agent": "hope"}, "fail or bypass"),
    ],
)
def test_bad_policy_is_refused_with_the_reason(policies, policy, why):
    with pytest.raises(BadPolicy, match=why):
        policies.add(policy)
    assert policies.policies == []


def test_a_batch_is_applied_whole_or_not_at_all(policies):
    policies.add({"filter": "tcp dst port 1"})
    with pytest.raises(BadPolicy):
        policies.apply([{"filter": "tcp dst port 2"}, {"filter": "nonsense here"}])
    assert [p.filter for p in policies.policies] == ["tcp dst port 1"]
    policies.apply([{"filter": "tcp dst port 2"}, {"filter": "tcp dst port 3"}])
    assert [p.filter for p in policies.policies] == ["tcp dst port 2", "tcp dst port 3"]


def test_the_next_daemon_finds_the_policies_and_gives_new_ones_new_numbers(make):
    before = make()
    before.add({"filter": "tcp dst port 1"})
    kept = before.add({"filter": "tcp dst port 2", "chain": ["mb1"]})
    before.remove(1)
    after = make()
    after.restore()
    assert [p.as_json() for p in after.policies] == [p.as_json() for p in before.policies]
    assert after.add({"filter": "tcp"}) > kept


def test_a_type_stands_in_a_chain_and_survives_the_daemon(make):
    policies = make()
    policies.set_type("firewall", ["10.0.1.2", "10.0.2.2"], "fewest")
    policies.add({"filter": "tcp", "chain": ["firewall", "mb1"]})
    assert policies._table.policies[0]["chain"] == ["0.0.0.0", "10.0.1.2"]
    assert policies._table.policies[0]["type"] == bytes([1, 0])
    again = make()
    again.restore()
    assert again.policies[0].chain == ["firewall", "10.0.1.2"]
    assert [t["sessions"] for t in again.types.as_json()] == [{"10.0.1.2": 3, "10.0.2.2": 1}]
    assert again.types.pick("firewall") == "10.0.2.2"


def test_types_that_cannot_be(policies):
    for members, choose, why in (
        ([], "fewest", "1 to 16 middleboxes"),
        (["10.0.1.2"] * 2, "fewest", "each once"),
        (["10.0.1.2"], "at random", "use one of round-robin, fewest"),
    ):
        with pytest.raises(BadType, match=why):
            policies.set_type("t", members, choose)
    policies.set_type("t", ["10.0.1.2"], "round-robin")
    policies.add({"filter": "tcp", "chain": ["t"]})
    with pytest.raises(BadType, match="used by policy 1"):
        policies.remove_type("t")
    with pytest.raises(BadType, match="no type 'u' here: t"):
        policies.remove_type("u")
