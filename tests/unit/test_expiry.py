# SPDX-License-Identifier: Apache-2.0
"""The fuller the tables, the sooner sessions that are over leave them."""

from dysco_ns.agent.expiry import CALM_PASS_S, IDLE_PASS_S, LEAST_LINGER_S, LINGER_S, Expiry, linger_s


class Table:
    """A session table that notes how it was asked to expire."""

    def __init__(self, live, most=1000, more=0):
        self.live, self.most_sessions, self.more, self.asked = live, most, more, []

    def live_sessions(self):
        return self.live

    def expire(self, linger, idle, beat):
        self.asked.append((linger, idle))
        self.more -= 1
        return self.more < 0


def test_patience_falls_with_room():
    shares = [i / 100 for i in range(101)]
    times = [linger_s(share) for share in shares]
    assert times == sorted(times, reverse=True)
    assert times[0] == times[25] == LINGER_S
    assert times[75] == times[100] == LEAST_LINGER_S


def test_calm_tables_are_passed_now_and_then():
    table, now = Table(10), [100.0]
    expiry = Expiry(table, 7200.0, clock=lambda: now[0])
    for _ in range(400):
        assert not expiry.step()
        now[0] += 0.25
    assert len(table.asked) == 100 / CALM_PASS_S
    assert [idle for _, idle in table.asked].count(7200.0) == -(-100 // IDLE_PASS_S)


def test_full_tables_are_passed_at_every_look_and_until_nothing_is_left_to_forget():
    table, now = Table(900, more=3), [100.0]
    expiry = Expiry(table, 7200.0, clock=lambda: now[0])
    assert [expiry.step() for _ in range(4)] == [True, True, True, False]
    now[0] += 0.25
    assert not expiry.step()
    assert [linger for linger, _ in table.asked] == [LEAST_LINGER_S] * 5
