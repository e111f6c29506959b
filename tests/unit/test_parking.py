# SPDX-License-Identifier: Apache-2.0
"""Segments that wait for a middlebox's state to move: in order, bounded, and not longer than their session lives."""

from dysco_ns.agent.parking import Waiting


def test_segments_of_a_session_come_out_in_the_order_in_which_they_came():
    waiting = Waiting()
    for i in range(10):
        assert waiting.put(i % 2, bytes([i]))
    assert waiting.take(1) == [bytes([i]) for i in (1, 3, 5, 7, 9)]
    assert waiting.take(1) == []
    assert len(waiting) == 5


def test_there_is_room_for_so_many_of_all_sessions_together():
    waiting = Waiting(most=3)
    assert [waiting.put(nonce, b"x") for nonce in (1, 2, 3, 4, 1)] == [True, True, True, False, False]
    waiting.take(2)
    assert waiting.put(1, b"y")
    assert waiting.take(1) == [b"x", b"y"]


def test_sessions_that_have_ended_wait_for_nothing():
    waiting = Waiting(most=2)
    waiting.put(1, b"x")
    waiting.put(2, b"y")
    waiting.keep(lambda nonce: nonce == 2)
    assert (waiting.take(1), waiting.take(2), len(waiting)) == ([], [b"y"], 0)
