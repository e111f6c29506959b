# SPDX-License-Identifier: Apache-2.0
"""Two paths over a network that loses, repeats and reorders, both directions busy; sessions that end at any moment."""

import random
import time

import pytest

from lab.faults import missing
from lab.impair import impaired
from tests.net.conftest import counters, needs, no_session_was_reset, settled, talking
from tests.net.test_reconfigure import SESSIONS, verified


@pytest.fixture
def bad(lab_of):
    """bad(middleboxes, initial): a chain whose router can lose, repeat and delay packets."""
    needs(lambda: missing("statistic", "TEE"))
    return lambda middleboxes, initial: lab_of("chain", middleboxes=middleboxes, initial=initial, rate=200, hmac="on")


def total(lab, name):
    return sum(counters(lab, host).get(name, 0) for host in lab.state.agents)


def changed_in_the_end(lab, host, **change):
    """Where so much is lost an attempt may be cancelled; then it is made again."""
    which = {"all": True}
    for _ in range(5):
        results = lab.agent(host).request("reconfigure", timeout_s=20, **which, **change)["results"]
        assert {r["outcome"] for r in results} <= {"done", "cancelled"}, results
        which = {"sessions": [r["session"] for r in results if r["outcome"] == "cancelled"]}
        if not which["sessions"]:
            return
    pytest.fail(f"still cancelled: {results}")


@pytest.mark.long
def test_anchors_cut_segments_and_answer_what_is_sent_again(bad, tmp_path):
    """End hosts and forwarding middleboxes are anchors; small segments that are sent again are sent together, and straddle
    cutoffs; on both paths, both ways."""
    lab = bad(4, 2)

    def steps():
        with impaired(lab, loss=0.03, repeated=0.02, late=0.3, late_ms=10):
            for _ in range(2):
                time.sleep(0.3)
                changed_in_the_end(lab, "client", replace={"mb1": ["mb3"]})
                changed_in_the_end(lab, "mb3", replace={"mb2": ["mb4"]})
                changed_in_the_end(lab, "client", chain=["mb1", "mb2"], until="server")

    verified(lab, tmp_path, steps, message=400, every_us=500)
    assert counters(lab, "client").get("split", 0) + counters(lab, "server").get("split", 0) > 0
    assert counters(lab, "mb1").get("split", 0) + counters(lab, "mb3").get("split", 0) > 0  # these forward
    assert total(lab, "split_failed") == 0
    assert total(lab, "answered_on_spot") > 0


@pytest.mark.long
@pytest.mark.parametrize("shares", [{"loss": 0.03}, {"repeated": 0.1}, {"late": 0.3}, {"loss": 0.01, "late": 0.2, "late_ms": 20}])
def test_each_by_itself_and_worse(bad, tmp_path, shares):
    lab = bad(2, 1)

    def steps():
        with impaired(lab, **shares):
            for turn in range(4):
                time.sleep(0.2)
                changed_in_the_end(lab, "client", replace={f"mb{turn % 2 + 1}": [f"mb{(turn + 1) % 2 + 1}"]})

    # of two segments that are late and sent again the second comes with a timestamp that is old: PAWS drops it without Dysco too
    allowed = ["stale_news_max"] if "late" in shares else []
    verified(lab, tmp_path, steps, stacks=("client", "server"), allowed=allowed)
    assert total(lab, "split_failed") == 0


@pytest.mark.parametrize("shares", [pytest.param(s, marks=pytest.mark.long) for s in ({}, {"loss": 0.01, "late": 0.05})])
def test_sessions_end_at_any_moment_while_their_chains_change(bad, tmp_path, shares):
    """Short sessions, a few at a time, each batch of another length; firewalls come and go all the while."""
    lab = bad(2, 1)
    dice, outcomes = random.Random(7), []

    def change(turn):
        old, new = (f"mb{(turn + k) % 2 + 1}" for k in range(2))
        for agent, order in (("client", {"insert": [new]}), (new, {"remove": old})):
            results = lab.agent(agent).request("reconfigure", all=True, timeout_s=20, **order)["results"]
            outcomes.extend(r["outcome"] for r in results)

    with impaired(lab, **shares):
        for turn in range(6):
            where = tmp_path / str(turn)
            where.mkdir()
            with talking(lab, where, sessions=SESSIONS, seconds=dice.uniform(0.05, 0.4)) as talk:
                change(0)
            assert talk.compared.clean, talk.compared.reasons
    assert outcomes.count("done") > SESSIONS, outcomes
    assert no_session_was_reset(lab)
    settled(lab)
    assert total(lab, "split_failed") == 0
