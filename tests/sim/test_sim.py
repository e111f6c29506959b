# SPDX-License-Identifier: Apache-2.0
"""Random networks and reconfigurations; every invariant at every step (sim.h, tcp.c and oracle.c say which)."""

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sim import LIBRARY, Scenario, run
from tests.sim.mutants.by_hand import BY_HAND
from tests.sim.mutants.sampled import places
from tests.sim.mutants.trial import SAME, Trial

scenarios = st.builds(
    Scenario,
    seed=st.integers(1, 2**31),
    middleboxes=st.integers(0, 6),
    chain=st.just(0),
    sessions=st.integers(1, 5),
    bytes=st.tuples(st.integers(0, 120_000), st.integers(0, 120_000)),
    reconfigurations=st.integers(0, 12),
    loss_ppm=st.sampled_from([0, 0, 1000, 20_000]),
    duplicate_ppm=st.sampled_from([0, 0, 5000]),
    reorder_ppm=st.sampled_from([0, 0, 20_000]),
    delay_us=st.integers(20, 8000),
    jitter_us=st.sampled_from([0, 0, 400]),
    mss=st.integers(400, 1400),
    window_shift=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    timestamps=st.integers(0, 1),
    sack=st.integers(0, 1),
    gso=st.integers(0, 1),
    calm=st.integers(0, 1),
    sign=st.integers(0, 1),
    slow=st.integers(0, 1),
    ports=st.sampled_from([0, 0, 8]),
)


def test_sessions_without_reconfigurations_are_a_control_for_the_end_points():
    outcome = run(Scenario(reconfigurations=0, loss_ppm=20_000, reorder_ppm=20_000, duplicate_ppm=10_000))
    assert outcome.wrong == ""
    assert (outcome.closed, outcome.done) == (4, 0)
    assert outcome.timeouts > 0  # the network did lose


def test_a_run_is_the_same_each_time():
    outcomes = [run(Scenario(seed=7, loss_ppm=10_000)) for _ in range(2)]
    assert outcomes[0].packets == outcomes[1].packets
    assert outcomes[0].virtual_us == outcomes[1].virtual_us


def test_reconfigurations_are_really_carried_out():
    outcomes = [run(Scenario(seed=seed)) for seed in range(1, 50)]
    assert [o.wrong for o in outcomes if o.wrong] == []
    assert sum(o.done for o in outcomes) > 200
    assert sum(o.refused for o in outcomes) > 5  # some met one another


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios, st.integers(0, 6))
def test_every_invariant_holds(scenario, chain):
    scenario = Scenario(**{**vars(scenario), "chain": min(chain, scenario.middleboxes)})
    outcome = run(scenario)
    assert outcome.wrong == "", f"replay: .venv/bin/python -m tests.sim '{scenario}'"


def test_many_seeds():
    done = subprocess.run([LIBRARY.parent / "sim", "1", "3000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + "replay: build/sim SEED SEED trace"


def test_many_seeds_under_sanitizers():
    done = subprocess.run([LIBRARY.parent / "sim-sanitized", "5001", "5200"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    return Trial(tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize("mutant", BY_HAND[:3], ids=lambda m: m.name)
def test_a_broken_core_is_found_out(trial, mutant):
    """The others: make mutants."""
    assert trial.objection(mutant) not in ("", SAME)


def test_every_change_by_hand_has_a_place_and_each_seed_its_own_sample():
    assert all(mutant.text() for mutant in BY_HAND)
    assert places(1) == places(1)
    assert {m.name for m in places(1)[:50]} != {m.name for m in places(2)[:50]}


def test_a_session_that_nobody_hurries_gets_every_chain_that_it_is_asked_for():
    outcomes = [run(Scenario(seed=seed, calm=1, reconfigurations=12, sign=seed & 1)) for seed in range(1, 30)]
    assert {(o.wrong, o.cancelled, o.unfinished) for o in outcomes} == {("", 0, 0)}
    assert sum(o.done for o in outcomes) > 240  # of 348; the others would have changed nothing
