# SPDX-License-Identifier: Apache-2.0
"""Timers of the left anchor: what is repeated, when it gives up, how it ends.  The core answers by a script."""


from dysco_ns.agent import leader as leading
from dysco_ns.agent.core import Event
from dysco_ns.agent.leader import Leader


class Core:
    """Records commands; answers as it is told."""

    refusals = {3: "not_spliced"}

    def __init__(self, **answers):
        self.sent, self.answers = [], answers

    def command(self, kind, **fields):
        self.sent.append((kind, fields))
        return self.answers.get(kind, "not")

    def new_txid(self, nonce):
        return 0x10001

    def record(self, nonce, side):
        return {"lock_ns": 1000, "ready_ns": 61_000, "first_byte_ns": 0, "drained_ns": 2_001_000}

    def kinds(self):
        return [kind for kind, _ in self.sent]


def started(core):
    ended = []
    leader = Leader(core, ended.append, lambda: 0.0)
    leader.start(7, {"flags": 1})
    return leader, ended, core.sent[0][1]["txid"]


def event(kind, txid, value=0):
    return Event(0, kind, 7, txid, value, leading.SIDE_RIGHT)


def test_request_is_repeated_with_growing_pauses_then_cancelled():
    core = Core()
    leader, ended, _ = started(core)
    now = 0.0
    while not ended and now < 20:
        now = max(leader.tick(now), now + 0.001)
    assert core.kinds().count("repeat") >= 5
    assert core.kinds()[-2:] == ["cancel", "forget_record"]
    assert (ended[0].outcome, ended[0].reason) == ("cancelled", "timeout")


def test_refusal_ends_the_attempt_with_its_reason():
    core = Core()
    leader, ended, txid = started(core)
    leader.handle(event("lock_refused", txid, 3), 0.1)
    assert ended[0].as_json()["reason"].startswith("the middlebox terminates TCP")
    assert not leader.attempts


def test_ready_then_gone_is_success_with_times_from_the_kernel():
    core = Core()
    leader, ended, txid = started(core)
    leader.handle(event("new_path_ready", txid), 0.1)
    leader.tick(0.2)
    assert core.kinds()[-1] == "release"
    leader.handle(event("old_path_gone", txid), 0.3)
    assert (ended[0].outcome, ended[0].reconfig_us, ended[0].first_byte_us) == ("done", 60.0, None)


def test_events_of_another_transaction_change_nothing():
    core = Core()
    leader, ended, txid = started(core)
    leader.handle(event("old_path_gone", txid + 1), 0.1)
    assert not ended and leader.attempts


def test_a_second_request_for_the_same_session_is_refused_as_busy():
    core = Core()
    leader, ended, _ = started(core)
    leader.start(7, {"flags": 1})
    assert ended[0].reason == "busy"
    assert len(core.sent) == 1
