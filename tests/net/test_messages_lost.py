# SPDX-License-Identifier: Apache-2.0
"""Every message of a reconfiguration gets lost: the first of each kind on each subsession at each hop, or all of a kind."""

import time
from contextlib import ExitStack

import pytest

from lab.impair import lost, packets_lost
from tests.net.conftest import settled
from tests.net.test_reconfigure import SESSIONS, changed, verified

STEPS = ("requestLock", "ackLock", "new path SYN", "new path SYN-ACK", "right ACK", "release", "ackRelease")


@pytest.mark.long
def test_the_acknowledgment_of_the_left_anchor_is_lost_at_each_hop(lab_of, tmp_path):
    """The release makes the right anchor ready then.  No firewalls here: one that has not seen that acknowledgment does
    not know the window of the left side, and drops what the right side sends beyond 64 kB; TCP sends it again."""
    lab = lab_of("chain", middleboxes=4, initial=2, rate=200, hmac="on")
    verified(lab, tmp_path, exchange(lab, "left ACK"))


@pytest.fixture
def net(lab_of):
    return lab_of("chain", middleboxes=4, initial=2, kind="firewall", rate=200, hmac="on")


def exchange(lab, message):
    """Two middleboxes are replaced by two others while the message gets lost, at two of the three hops at least."""

    def steps():
        time.sleep(0.3)
        with lost(lab, message):
            changed(lab, "client", chain=["mb3", "mb4"], until="server")
            assert packets_lost(lab) >= 2 * SESSIONS
        settled(lab, timeout_s=5)

    return steps


@pytest.mark.parametrize("message", [pytest.param(m, marks=pytest.mark.long) for m in STEPS])
def test_the_first_of_a_kind_is_lost_at_each_hop(net, tmp_path, message):
    verified(net, tmp_path, exchange(net, message))


def test_the_first_of_every_kind_is_lost_at_each_hop(lab_of, tmp_path):
    """A signature on each, firewalls on both paths: and still everybody has seen an ordinary connection."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", rate=200, hmac="on")
    messages = [m for m in STEPS if m != "right ACK"]  # with that the repeats take longer than the 3 s that an attempt has

    def steps():
        time.sleep(0.3)
        with ExitStack() as stack:
            for message in messages:
                stack.enter_context(lost(lab, message))
            changed(lab, "client", replace={"mb1": ["mb2"]})
            assert packets_lost(lab) >= 2 * SESSIONS * len(messages)
        settled(lab, timeout_s=5)

    verified(lab, tmp_path, steps, wires=("mb2",))


@pytest.mark.long
@pytest.mark.parametrize("message", ["cancel", "ackCancel"])
def test_a_cancel_is_lost_at_each_hop(net, tmp_path, message):
    """The new path is never answered; what unlocks the old one gets lost, too: then leases free the locks."""
    lab = net

    def steps():
        time.sleep(0.3)
        with lost(lab, "new path SYN-ACK", once=False), lost(lab, message):
            reply = lab.agent("client").request("reconfigure", all=True, insert=["mb3"], retries=0, timeout_s=20)
            assert {r["outcome"] for r in reply["results"]} == {"cancelled"}, reply
        settled(lab, ("client", "server"), timeout_s=5)
        changed(lab, "client", insert=["mb3"])

    verified(lab, tmp_path, steps)


@pytest.mark.parametrize("message", ["requestLock", *(pytest.param(m, marks=pytest.mark.long) for m in STEPS[1:4])])
def test_all_of_a_kind_are_lost_and_the_attempt_is_cancelled(net, tmp_path, message):
    """Whatever step it fails at, the sessions go on, nothing is left, and the next attempt succeeds."""
    lab = net

    def steps():
        time.sleep(0.3)
        with lost(lab, message, once=False):
            reply = lab.agent("client").request("reconfigure", all=True, replace={"mb1": ["mb3"]}, retries=0, timeout_s=20)
            assert {(r["outcome"], r["retry"]) for r in reply["results"]} == {("cancelled", True)}, reply
            assert packets_lost(lab) >= SESSIONS
        settled(lab, ("client", "mb1", "mb2", "server"), timeout_s=5)
        assert {s["state"] for s in lab.agent("mb3").request("sessions")["sessions"]} <= {"over"}
        changed(lab, "client", replace={"mb1": ["mb3"]})

    verified(lab, tmp_path, steps)
