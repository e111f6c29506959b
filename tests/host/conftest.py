# SPDX-License-Identifier: Apache-2.0
"""A world for each test."""

import pytest

pytest.register_assert_rewrite("tests.host.world")
from tests.host.world import World  # noqa: E402


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.free()
