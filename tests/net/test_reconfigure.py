# SPDX-License-Identifier: Apache-2.0
"""Insertion, deletion and replacement on live sessions whose streams are hashed at both ends, both ways."""

import json
import subprocess
import sys
import threading
import time

import pytest

from lab.tools import bulk
from tests.net.conftest import LONG_S, counters, invalid_packets, no_reset_was_sent, no_session_was_reset, talking
from tests.net.watch import watched

PORT = 5001
SESSIONS = 20


def changed(lab, host, **change):
    """Asks an agent for a change of all its sessions; all must succeed."""
    results = lab.agent(host).request("reconfigure", all=True, timeout_s=20, **change)["results"]
    assert len(results) == SESSIONS
    assert {r["outcome"] for r in results} == {"done"}, [r for r in results if r["outcome"] != "done"][:2]
    time.sleep(0.3)


def verified(lab, tmp_path, steps, wires=(), stacks=(), allowed=(), **load):
    """Sessions that last while steps() change their chains, hashed at both ends; captured as `watched` says."""
    with watched(lab, tmp_path, wires, stacks, allowed):
        with talking(lab, tmp_path, sessions=SESSIONS, seconds=LONG_S, **load) as talk:
            steps()
            assert no_reset_was_sent(lab)
            talk.client.terminate()  # ends its sessions in good order
        compared = talk.compared
    assert compared.sessions == SESSIONS
    assert (compared.failed, compared.bytes_mismatched) == (0, 0), compared.reasons
    assert no_session_was_reset(lab)
    assert not (invalid := {h.name: n for h in lab.topology.hosts if (n := invalid_packets(lab, h))}), invalid
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

    verified(lab, tmp_path, steps, wires=("mb1",), stacks=("server",))


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

    verified(lab, tmp_path, steps, wires=("client", "mb2", "mb3", "server"), stacks=("client", "server"))


def test_anchors_that_are_middleboxes(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=4, initial=3, rate=200)

    def steps():
        time.sleep(0.3)
        changed(lab, "mb1", replace={"mb2": ["mb4"]})
        assert flat(lab, "mb2")
        changed(lab, "mb3", insert=["mb2"])
        assert not flat(lab, "mb2")

    verified(lab, tmp_path, steps, wires=("mb1", "mb4"))
    assert not any("split_failed" in counters(lab, host) for host in lab.topology.names)


def test_one_session_is_changed_again_and_again(lab_of, tmp_path):
    """A strict firewall leaves and comes back, too."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", rate=200)

    def steps():
        for _ in range(3):
            time.sleep(0.3)
            changed(lab, "client", replace={"mb1": ["mb2"]})
            changed(lab, "client", remove="mb2")
            changed(lab, "client", insert=["mb1"])

    verified(lab, tmp_path, steps)


def dysco(*words):
    """The command as users give it; returns its exit status, output and errors."""
    done = subprocess.run([sys.executable, "-m", "dysco_ns.policy.cli", *words], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_command_finds_who_must_lead(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=3, initial=2, rate=200)
    said = []

    def steps():
        time.sleep(0.3)
        for words in (
            ["--insert", "mb3", "--before", "mb2"],
            ["--remove", "mb1"],
            ["--chain", "mb1,mb2,mb3"],  # mb3 and mb2 change places: two steps
            ["--chain", ""],
        ):
            said.append(dysco("reconfigure", "--at", "server", "--all", "--json", *words))

    verified(lab, tmp_path, steps)
    for status, out, err in said:
        assert status == 0, err + out[:600]
        results = json.loads(out)["results"]
        assert [r["outcome"] for r in results] == ["done"] * SESSIONS


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--all", "--remove", "mb2"], "mb2 is not on the session's chain: client mb1 server"),
        (["--all", "--insert", "mb1"], "mb1 is on the chain already"),
        (["--all", "--remove", "server"], "an end of the session"),
        (["--session", "0123456789abcdef", "--remove", "mb1"], "no session"),
    ],
)
def test_a_change_that_does_not_fit_is_one_line(one_session, words, why):
    status, out, err = dysco("reconfigure", "--at", "client", *words)
    assert (status, out) == (1, "")
    assert why in err
    assert err.count("\n") == 1


@pytest.fixture
def one_session(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=2, initial=1)
    server = lab.topology.host("server").address
    with lab.service("server", bulk.server_command(server, PORT, tmp_path / "s.jsonl")):
        command = bulk.client_command(server, PORT, tmp_path / "c.jsonl", sessions=1, seconds=30, message=100, every_us=100_000)
        process = lab.popen("client", command, stdout=subprocess.PIPE)
        process.stdout.readline()
        yield lab
        process.terminate()
        process.wait(10)
        process.stdout.close()


def test_of_two_that_contend_for_a_segment_exactly_one_wins(lab_of, tmp_path):
    """Client to mb2 against mb1 to mb3: they share the subsession between mb1 and mb2."""
    lab = lab_of("chain", middleboxes=5, initial=3, rate=200)
    asked = {
        "client": {"chain": ["mb4"], "until": "mb2"},
        "mb1": {"chain": ["mb5"], "until": "mb3"},
    }
    won = {}

    def ask(host):
        reply = lab.agent(host).request("reconfigure", all=True, retries=0, timeout_s=20, **asked[host])
        for r in reply["results"]:
            won.setdefault(r["session"], []).append((r["outcome"], r["reason"]))

    def steps():
        time.sleep(0.3)
        threads = [threading.Thread(target=ask, args=(host,)) for host in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    verified(lab, tmp_path, steps)
    assert len(won) == SESSIONS
    assert all(sorted(outcome for outcome, _ in answers) == ["done", "refused"] for answers in won.values()), won


def test_a_new_path_that_cannot_be_made_is_cancelled_and_nothing_is_left(lab_of, tmp_path):
    """The second of two new middleboxes has no agent."""
    lab = lab_of("chain", middleboxes=2, initial=0, rate=200)
    lab.stop_agent("mb2")
    answers = []

    def steps():
        time.sleep(0.3)
        reply = lab.agent("client").request("reconfigure", all=True, insert=["mb1", "mb2"], retries=0, timeout_s=20)
        answers.extend(reply["results"])
        described = [s for host in ("client", "server") for s in lab.agent(host).request("sessions")["sessions"]]
        assert {(s["state"], s["lock"]) for s in described} == {("established", "unlocked")}
        assert {s["state"] for s in lab.agent("mb1").request("sessions")["sessions"]} == {"over"}

    verified(lab, tmp_path, steps)
    assert {r["outcome"] for r in answers} == {"cancelled"}
    assert all("no answer" in r["reason"] for r in answers)
