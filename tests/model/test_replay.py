# SPDX-License-Identifier: Apache-2.0
"""What the agents tell, in the simulator, is what the models allow; and what they do not allow is refused."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dysco_ns.model.events import BETWEEN, LEFT, RIGHT, TABLE, Event, Lost, NotAllowed, documented, replay
from tests.model import MODELS
from tests.sim import events

DOCS = Path(__file__).resolve().parents[2] / "docs" / "verification.md"
SEEDS = 600
# What the core does and the model does not: docs/verification.md, "Found with it".  By seed of build/sim.
ONCE_WRONG = (915, 4375, 5338)  # the first of each kind that this check has found, docs/verification.md


def told(*lines):
    """Events from lines "host kind side", one a millisecond; a transaction 1 unless there is a fourth word."""
    found = []
    for i, line in enumerate(lines):
        host, kind, side, *txid = line.split()
        found.append(Event(i * 1_000_000, host, kind, "5e55", int(*txid) if txid else 1, 0, side))
    return found


def one():
    return told(
        "a lock_requested right", "b lock_pending right", "c locked left", "b locked right", "a new_path_syn right",
        "a new_path_ready right", "c new_path_ready left", "c drained left", "a drained right", "c old_path_gone left",
        "b left_chain right", "a old_path_gone right", "a settled right", "c settled left",
    )  # fmt: skip


def test_the_simulators_events_are_the_models(tmp_path):
    runs = events(1, SEEDS, tmp_path / "events")
    replayed, wrong = 0, {}
    for seed, run in runs.items():
        try:
            replayed += replay(run).events
        except NotAllowed as why:
            wrong[seed] = str(why)
    assert wrong == {}
    assert len(runs) == SEEDS
    assert replayed > 30 * SEEDS


@pytest.mark.parametrize("seed", ONCE_WRONG)
def test_what_the_core_once_did_and_the_model_did_not(seed, tmp_path):
    replay(events(seed, seed, tmp_path / "events")[seed])


def test_a_whole_reconfiguration_is_allowed():
    assert replay(one()).events == 14


def without(kind, host):
    return [e for e in one() if (e.kind, e.host) != (kind, host)]


def exchanged(first, second):
    """Two of the left anchor's events change places."""
    run = {e.kind: e for e in one() if e.host == "a"}
    change = {first: replace(run[first], kind=second), second: replace(run[second], kind=first)}
    return [change[e.kind] if e.host == "a" and e.kind in change else e for e in one()]


@pytest.mark.parametrize(
    ("run", "event", "host", "state"),
    [
        (exchanged("new_path_ready", "drained"), "drained", "a", "new_path_syn"),
        (without("new_path_ready", "c"), "drained", "c", "locked"),
        (without("drained", "a"), "old_path_gone", "c", "drained"),
        (without("old_path_gone", "c"), "left_chain", "b", "locked"),
        (without("left_chain", "b"), "old_path_gone", "a", "locked"),
        (without("lock_requested", "a"), "lock_pending", "b", "-"),
        (without("settled", "c"), "old_path_gone", "c", "old_path_gone"),
        ([*one(), replace(one()[-1], time_ns=10**9)], "settled", "c", "settled"),
        ([*one()[:6], replace(one()[6], host="a", kind="cancelled", side="right")],
         "cancelled", "a", "new_path_ready"),
        ([*one()[:2], replace(one()[2], host="b", txid=2, kind="lock_requested", side="right")],
         "lock_requested", "b", "lock_pending"),
        ([*one()[:2], replace(one()[2], host="a", value=4, kind="lock_refused", side="right")],
         "lock_refused", "a", "lock_requested"),
    ],
    ids=["drained before ready", "no ready", "left not drained", "no old_path_gone", "nobody leaves", "no request",
         "never settled", "settled twice", "cancelled after ready", "two winners", "locked by nobody"],
)  # fmt: skip
def test_what_the_model_does_not_allow_is_refused_in_one_line(run, event, host, state):
    run = sorted(run, key=lambda e: e.time_ns)
    with pytest.raises(NotAllowed) as refused:
        replay(run)
    line = str(refused.value)
    assert f"{event} at {host}, transaction" in line
    assert f"in state {state}" in line or f"state {state} " in line
    assert "\n" not in line


def test_of_contenders_one_must_have_won():
    run = told("a lock_requested right 1", "b lock_requested right 2", "a lock_refused right 1", "b lock_refused right 2")
    run = [replace(e, value=4) if e.kind == "lock_refused" else e for e in run]
    with pytest.raises(NotAllowed, match="all whom it met were refused as locked"):
        replay(run)


def test_what_two_processors_tell_may_change_places_within_the_slack():
    run = one()
    run[4], run[5] = replace(run[4], time_ns=run[5].time_ns), replace(run[5], time_ns=run[4].time_ns)
    assert replay(run, slack_ns=2_000_000).events == 14
    with pytest.raises(NotAllowed):
        replay(run)
    with pytest.raises(NotAllowed):
        replay(run, slack_ns=500_000)


def test_nothing_is_said_about_a_run_whose_events_got_lost():
    with pytest.raises(Lost):
        replay([*one(), Event(0, "b", "event_lost", "", 0, 0, "right")])


def body(text, inline):
    """An inline's or proctype's text in one line, without comments."""
    start = re.search(rf"^(inline|proctype) {inline}\(.*\)$", text, re.M)
    assert start, inline
    words = re.sub(r"/\*.*?\*/", "", text[start.start() : text.index("\n}", start.start())], flags=re.S)
    return re.sub(r"\s+", " ", words)


@pytest.mark.parametrize("transition", [t for t in TABLE if t.file], ids=lambda t: f"{t.role} {t.event} in {t.before[0]}")
def test_each_transition_is_where_the_table_says_that_the_model_has_it(transition):
    assert transition.statement in body((MODELS / transition.file).read_text(), transition.inline)


def test_each_event_of_a_reconfiguration_is_in_the_table():
    assert {t.role for t in TABLE} == {LEFT, RIGHT, BETWEEN}
    assert all(t.file for t in TABLE)


def test_the_documentation_prints_the_table():
    assert documented() in DOCS.read_text()
