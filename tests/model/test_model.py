# SPDX-License-Identifier: Apache-2.0
"""A part of `make verify` in every test run: both models where most can go wrong, and what they must object to."""

import pytest

from tests.model import check, lock, twopaths
from tests.model.kept import Kept

CONTENTIONS = (
    lock.contention(2, (0, 1), (0, 1), losses=1),
    lock.contention(3, (0, 2), (1, 2), losses=2),
    lock.contention(4, (0, 2), (1, 3), losses=2),
    lock.contention(4, (0, 1), (1, 3), losses=1),
)
SESSIONS = (
    *(twopaths.session(change, 1, 0) for change in twopaths.CHANGES),
    twopaths.session("no middlebox", 0, 1, LOSSES=1),
    twopaths.session("delete", 1, 0, RECONFIGS=2),
)


def name(configuration):
    return configuration.name


@pytest.mark.parametrize("configuration", CONTENTIONS, ids=name)
def test_exactly_one_of_two_contending_anchors_wins_and_nothing_is_left(configuration, tmp_path):
    verdict = check(configuration, tmp_path)
    assert (verdict.errors, verdict.complete) == (0, True), verdict.objection


@pytest.mark.parametrize("configuration", SESSIONS, ids=name)
def test_every_byte_comes_once_in_order_and_the_old_path_ends_empty(configuration, tmp_path):
    verdict = check(configuration, tmp_path)
    assert (verdict.errors, verdict.complete) == (0, True), verdict.objection


@pytest.mark.parametrize("configuration", [*lock.CONTROLS, *twopaths.CONTROLS], ids=name)
def test_what_is_broken_is_found(configuration, tmp_path):
    assert check(configuration, tmp_path).errors


def test_a_finished_configuration_is_not_run_again_unless_the_model_or_its_numbers_change(tmp_path):
    verdict = check(CONTENTIONS[0], tmp_path / "work")
    Kept(tmp_path / "kept.json").put(CONTENTIONS[0], verdict)
    assert Kept(tmp_path / "kept.json").get(CONTENTIONS[0]) == verdict
    assert Kept(tmp_path / "kept.json").get(CONTENTIONS[1]) is None
    assert Kept(tmp_path / "kept.json", again=True).get(CONTENTIONS[0]) is None
