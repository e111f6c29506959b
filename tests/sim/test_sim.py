# SPDX-License-Identifier: Apache-2.0
"""Random networks and reconfigurations; every invariant at every step (sim.h, tcp.c and oracle.c say which)."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sim import LIBRARY, Scenario, campaign, picture, run, scenario_of
from tests.sim.mutants.by_hand import BY_HAND
from tests.sim.mutants.sampled import places
from tests.sim.mutants.trial import SAME, Trial
from tests.sim.shrink import kind, shrink

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
    resize=st.integers(0, 1),
    replays=st.sampled_from([0, 0, 20]),
)
# A middlebox has one part to play.  Proxies, hosts that die and moves are not for calm sessions.
parts = st.sampled_from(["", "", "nat", "proxy", "dies", "moves"])


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
@given(scenarios, st.integers(0, 6), parts, st.integers(1, 6))
def test_every_invariant_holds(scenario, chain, part, who):
    chosen = {part: min(who, scenario.middleboxes) if part != "moves" else who} if part else {}
    calm = scenario.calm if part in ("", "nat") else 0
    scenario = replace(scenario, chain=min(chain, scenario.middleboxes), calm=calm, **chosen)
    outcome = run(scenario)
    assert outcome.wrong == "", f"replay: .venv/bin/python -m tests.sim '{scenario}'"


# Reduced from seeds that were wrong (docs/verification.md).
FOUND = {
    "a SYN replayed to a right anchor whose peer is ready": Scenario(
        seed=1, middleboxes=3, chain=0, sessions=2, bytes=(32407, 31443), reconfigurations=4, delay_us=4112, mss=1240,
        window_shift=(8, 1), sack=0, sign=1, replays=17, resize=1),
    "an echo that comes late by the slower of two paths": Scenario(
        seed=35640, middleboxes=5, chain=0, sessions=3, bytes=(35100, 14508), reconfigurations=7, delay_us=3728, mss=624,
        window_shift=(3, 6), sack=0, proxy=4, replays=22),
    "a handshake said again by who knows beta": Scenario(
        seed=8, middleboxes=1, chain=0, sessions=4, bytes=(3114, 23874), reconfigurations=1, delay_us=1572, mss=1117,
        window_shift=(8, 9), sack=0, calm=1, replays=7),
    "a proxy whose last bytes were acknowledged in vain": Scenario(
        seed=7, middleboxes=5, chain=1, sessions=4, bytes=(0, 33603), reconfigurations=7, loss_ppm=28555, duplicate_ppm=5873,
        delay_us=1658, mss=562, window_shift=(5, 7), sack=0, gso=0, proxy=5),
    "an anchor that settles below the timestamp that it has echoed": Scenario(
        seed=125299, middleboxes=5, chain=0, sessions=3, bytes=(98601, 56614), delay_us=350, mss=1037, window_shift=(0, 3),
        calm=1, sign=1, ports=8),
    "echoes that are level, and no longer": Scenario(
        seed=139585, chain=3, sessions=1, bytes=(115800, 98219), reconfigurations=5, delay_us=1033, mss=1242, window_shift=(3, 5),
        gso=2, sign=1, slow=1, proxy=3, moves=3),
    "an anchor that settles before its own side's echoes have caught up": Scenario(
        seed=155388, middleboxes=2, chain=2, sessions=2, bytes=(42209, 7211), reconfigurations=4, delay_us=4668, mss=915,
        window_shift=(9, 7), gso=0, calm=1, sign=1),
}  # fmt: skip


@pytest.mark.parametrize("scenario", FOUND.values(), ids=FOUND)
def test_what_was_wrong_once_is_right(scenario):
    assert run(scenario).wrong == ""


def test_many_seeds():
    done = subprocess.run([LIBRARY.parent / "sim", "1", "2000"], capture_output=True, text=True, check=False)
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


# ---- what there is beside forwarders ----

BESIDES = {
    "proxies that terminate TCP leave": ({"proxy": 2, "chain": 2}, "proxies_gone", 95),
    "end hosts move": ({"moves": 6}, "moved", 20),
    "a host dies with the sessions that need it": ({"dies": 1, "chain": 2}, "lost", 20),
    "old messages come again": ({"replays": 25, "reconfigurations": 6}, "replayed", 400),
}


@pytest.mark.parametrize(("change", "counter", "least"), BESIDES.values(), ids=BESIDES)
def test_it_really_comes_about_and_nothing_is_wrong(change, counter, least):
    outcomes = [run(replace(Scenario(seed=seed, loss_ppm=2000 * (seed & 1)), **change)) for seed in range(1, 41)]
    assert [o.wrong for o in outcomes if o.wrong] == []
    assert sum(getattr(o, counter) for o in outcomes) >= least


def test_strict_firewalls_find_nothing_invalid_where_the_network_keeps_the_order():
    outcomes = [run(Scenario(seed=seed, slow=seed & 1, nat=1)) for seed in range(1, 41)]
    assert [o.wrong for o in outcomes if o.wrong] == []
    assert sum(o.judged for o in outcomes) > 100_000
    assert sum(o.invalid for o in outcomes) == 0


# ---- a failure: reduced, replayed, drawn; a long search ----


def test_a_failing_scenario_is_reduced_to_what_the_failure_needs():
    def wrong(s):
        return f"at {s.seed}.0 ms: host {s.middleboxes} was reset" if s.proxy and s.sessions > 1 and s.loss_ppm else ""

    small, text = shrink(replace(scenario_of(21), proxy=2, calm=0), wrong)
    assert (small.sessions, small.reconfigurations, small.replays, small.bytes) == (2, 0, 0, (0, 0))
    assert small.proxy
    assert small.loss_ppm
    assert kind(text) == "host N was reset"
    with pytest.raises(ValueError, match="nothing goes wrong"):
        shrink(Scenario(), lambda s: "")


def test_one_command_replays_a_seed_and_draws_it(tmp_path):
    target = tmp_path / "seed.png"
    command = [sys.executable, "-m", "tests.sim", "1013", "--picture", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is wrong" in done.stdout
    assert target.read_bytes().startswith(b"\x89PNG")
    refused = subprocess.run([sys.executable, "-m", "tests.sim", "x"], capture_output=True, text=True, check=False)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


def test_the_picture_shows_each_byte_of_a_session_once_on_its_path(tmp_path):
    scenario = Scenario(seed=1, middleboxes=2, chain=1, sessions=1, reconfigurations=6, bytes=(60_000, 60_000))
    outcome = run(scenario, tmp_path / "record")
    assert outcome.done > 0
    paths = []
    for side in picture.read(tmp_path / "record", 0, 4):
        ends = [first + length for _, first, length, _ in side.sent]
        assert max(ends) == 60_001  # bytes since the SYN, which has a number of its own
        assert sum(length for _, _, length, _ in side.sent) == 60_000  # nothing was lost, so nothing is sent again
        paths.append(len({path for *_, path in side.sent}))
        assert side.events
    assert max(paths) > 1


def test_a_long_search_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "CHUNK", 5)
    (tmp_path / "sim").symlink_to(LIBRARY.parent / "sim")
    campaign.run(tmp_path, 1, 10, 1, 0)
    log = tmp_path / "log"
    log.write_text(log.read_text() + '{"first": 11, "la')  # it was stopped here
    total = campaign.run(tmp_path, 1, 20, 2, 0)
    assert (total["seeds"], total["violations"]) == (20, 0)
    assert json.loads((tmp_path / "summary.json").read_text()) == total
    assert sorted(c.first for c in campaign.done(tmp_path)) == [1, 6, 11, 16]
