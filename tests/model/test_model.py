# SPDX-License-Identifier: Apache-2.0
"""A part of `make verify` in every test run: contention at each place of a chain, and what the model must object to."""

import pytest

from tests.model import CONTROLS, Configuration, check

PART = (
    Configuration(2, (0, 1), (0, 1), losses=1),
    Configuration(3, (0, 2), (1, 2), losses=2),
    Configuration(4, (0, 2), (1, 3), losses=2),
    Configuration(4, (0, 1), (1, 3), losses=1),
)


@pytest.mark.parametrize("configuration", PART, ids=lambda c: c.name)
def test_exactly_one_of_two_contending_anchors_wins_and_nothing_is_left(configuration, tmp_path):
    verdict = check(configuration, tmp_path)
    assert (verdict.errors, verdict.complete) == (0, True), verdict.objection


@pytest.mark.parametrize("configuration", CONTROLS, ids=lambda c: c.name)
def test_a_broken_handshake_is_found(configuration, tmp_path):
    assert check(configuration, tmp_path).errors
