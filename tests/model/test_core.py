# SPDX-License-Identifier: Apache-2.0
"""The shipping core under Spin, a part of it in every test run; and that what is wrong with it would be found."""

from dataclasses import replace

import pytest

from tests.model import check, core

CONFIGURATIONS = (
    core.one(3, (0, 2), through=True, LOSSES=1),
    core.one(3, (0, 2), LOSSES=1, CANCELS=1),
    core.one(3, (1, 2), MOVES=2, LOSSES=1),
    core.two(4, (0, 2), (1, 3), LOSSES=1),
)
CONTROLS = [c for c in core.CONTROLS if (c.mutant and "cancel" in c.mutant.name) or not c.mutant]
SHARED = next(c for c in core.CONTROLS if c.model == "shared")


def name(configuration):
    return configuration.name


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=name)
def test_every_attempt_ends_and_leaves_nothing_whatever_overtakes_what(configuration, tmp_path):
    verdict = check(configuration, tmp_path)
    assert (verdict.errors, verdict.complete) == (0, True), verdict.objection


@pytest.mark.parametrize("configuration", CONTROLS, ids=name)
def test_a_wrong_core_and_shared_state_are_found(configuration, tmp_path):
    assert check(configuration, tmp_path).errors


def test_partial_order_reduction_would_miss_shared_state(tmp_path):
    """Why no search here uses it; if Spin should learn to see what C touches, this says so."""
    verdict = check(replace(SHARED, reduced=True), tmp_path)
    assert (verdict.errors, verdict.complete) == (0, True)
