# SPDX-License-Identifier: Apache-2.0
"""Insertion, deletion and replacement on live sessions whose streams are hashed at both ends, both ways."""

import time

import pytest

from tests.net.conftest import transfer

PORT = 5001
SESSIONS = 20


def changed(lab, host, **change):
    """Asks an agent for a change of all its sessions; all must succeed."""
    results = lab.agent(host).request("reconfigure", all=True, timeout_s=20, **change)["results"]
    assert len(results) == SESSIONS
    assert {r["outcome"] for r in results} == {"done"}, [r for r in results if r["outcome"] != "done"][:2]
    time.sleep(0.3)


def verified(lab, tmp_path, steps, seconds=3.0):
    server = lab.topology.host("server").address
    compared = transfer(lab, "client", "server", server, (PORT, PORT), tmp_path, sessions=SESSIONS, seconds=seconds, during=steps)
    assert compared.sessions == SESSIONS
    assert (compared.failed, compared.bytes_mismatched) == (0, 0)
    return compared


def carried(lab, host):
    """Packets that the sessions of a host have had so far."""
    sessions = lab.agent(host).request("sessions")["sessions"]
    return sum(side["packets_out"] for s in sessions for side in s["counters"].values())


def flat(lab, host, seconds=0.3):
    before = carried(lab, host)
    time.sleep(seconds)
    return carried(lab, host) == before


@pytest.mark.parametrize("kind", ["router", "firewall"])
def test_insertion_right_of_the_client(lab_of, tmp_path, kind):
    lab = lab_of("chain", middleboxes=1, initial=0, kind=kind, rate=200)

    def steps():
        time.sleep(0.3)
        changed(lab, "client", insert=["mb1"])
        assert not flat(lab, "mb1")

    verified(lab, tmp_path, steps)


def test_deletion_of_a_transparent_middlebox(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, rate=200)

    def steps():
        time.sleep(0.3)
        changed(lab, "client", remove="mb1")
        assert flat(lab, "mb1")

    verified(lab, tmp_path, steps)


def test_replacement_by_two(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=3, initial=1, rate=200, hmac="on")

    def steps():
        time.sleep(0.3)
        changed(lab, "client", replace={"mb1": ["mb2", "mb3"]})
        assert flat(lab, "mb1")
        assert not flat(lab, "mb3")

    verified(lab, tmp_path, steps)


def test_anchors_that_are_middleboxes(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=4, initial=3, rate=200)

    def steps():
        time.sleep(0.3)
        changed(lab, "mb1", replace={"mb2": ["mb4"]})
        assert flat(lab, "mb2")
        changed(lab, "mb3", insert=["mb2"])
        assert not flat(lab, "mb2")

    verified(lab, tmp_path, steps)


def test_one_session_is_changed_again_and_again(lab_of, tmp_path):
    """A strict firewall leaves and comes back, too."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", rate=200)

    def steps():
        for _ in range(3):
            time.sleep(0.3)
            changed(lab, "client", replace={"mb1": ["mb2"]})
            changed(lab, "client", remove="mb2")
            changed(lab, "client", insert=["mb1"])

    verified(lab, tmp_path, steps, seconds=8.0)
