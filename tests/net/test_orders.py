# SPDX-License-Identifier: Apache-2.0
"""One command changes many sessions: at the middlebox that is replaced, for those that match, with its progress shown."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from contextlib import nullcontext

import pytest

from lab.impair import lost
from lab.network import wait_until
from tests.net.conftest import LONG_S, no_session_was_reset, nothing_was_invalid, sessions, settled, talking
from tests.net.test_reconfigure import SESSIONS, changed, dysco, flat, verified


def outcomes(said):
    status, out, err = said
    assert out, err
    return status, [r["outcome"] for r in json.loads(out)["results"]]


def test_a_middlebox_replaces_itself_in_all_its_sessions(lab_of, tmp_path):
    """Several come in its place; and then one of them is told to leave, at itself."""
    lab = lab_of("chain", middleboxes=4, initial=2, kind="firewall", rate=200, hmac="on")
    said = []

    def steps():
        time.sleep(0.3)
        said.append(dysco("reconfigure", "--at", "mb1", "--all", "--replace", "mb1=mb3,mb4", "--json"))
        assert flat(lab, "mb1")
        said.append(dysco("reconfigure", "--at", "mb4", "--all", "--remove", "mb4", "--json"))
        assert flat(lab, "mb4")
        assert not flat(lab, "mb3")

    verified(lab, tmp_path, steps, wires=("mb3", "mb4"))
    assert [outcomes(s) for s in said] == [(0, ["done"] * SESSIONS)] * 2


@pytest.mark.long
def test_several_are_inserted_and_removed_at_once(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=4, initial=1, kind="firewall", rate=200)

    def steps():
        time.sleep(0.3)
        changed(lab, "mb1", insert=["mb2", "mb3", "mb4"])
        assert not flat(lab, "mb4")
        changed(lab, "mb1", chain=[], until="server")
        assert flat(lab, "mb4") and flat(lab, "mb2")

    verified(lab, tmp_path, steps, wires=("mb1", "mb3"), stacks=("client",))


@pytest.mark.parametrize("way", ["calm", pytest.param("lost", marks=pytest.mark.long)])
def test_a_forwarding_middlebox_leaves_by_itself(lab_of, tmp_path, way):
    """It asks its left neighbour, which leads; the question may get lost."""
    lab = lab_of("chain", middleboxes=2, kind="firewall", rate=200, hmac="on")

    def steps():
        time.sleep(0.3)
        with lost(lab, "trigger") if way == "lost" else nullcontext():
            results = lab.agent("mb2").request("leave", all=True, timeout_s=20)["results"]
        assert [r["outcome"] for r in results] == ["done"] * SESSIONS, results
        settled(lab, timeout_s=5)
        assert flat(lab, "mb2")
        assert not flat(lab, "mb1")

    verified(lab, tmp_path, steps, wires=("mb1",))


def test_a_scrubber_comes_into_all_sessions_that_match(lab_of, tmp_path):
    """Those of one port get it, those of another do not; asked at the server, which is only on their chain."""
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", rate=200)
    others = tmp_path / "others"
    others.mkdir()
    with (
        talking(lab, tmp_path, seconds=LONG_S) as talk,
        talking(lab, others, port=(5002, 5002), seconds=LONG_S) as other,
    ):
        said = dysco(
            "reconfigure", "--at", "server", "--match", "tcp dst port 5001", "--insert", "mb2", "--after", "mb1", "--json"
        )
        seen = [s["tuple"].rsplit(":", 1)[1] for s in sessions(lab, "mb2")]
        for t in (talk, other):
            t.client.terminate()
    assert talk.compared.clean and other.compared.clean
    assert outcomes(said) == (0, ["done"] * 10)
    assert seen == ["5001"] * 10
    assert no_session_was_reset(lab) and nothing_was_invalid(lab)


def on_a_terminal(*words):
    """Runs the command on a terminal; returns its status and all that the terminal has been shown."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-m", "dysco_ns.policy.cli", *words], stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end has gone
            break
        shown += piece
    os.close(ours)
    return process.wait(10), shown.decode()


def test_progress_is_shown_on_a_terminal_and_nowhere_else(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, initial=0, rate=200)
    with talking(lab, tmp_path, sessions=40, seconds=LONG_S) as talk:
        first = on_a_terminal("reconfigure", "--at", "client", "--all", "--insert", "mb1")
        second = dysco("reconfigure", "--at", "client", "--all", "--remove", "mb1")
        talk.client.terminate()
    assert talk.compared.clean
    (status, shown), (silent_status, out, err) = first, second
    assert (status, silent_status, err) == (0, 0, "")
    shares = [int(n) for n in re.findall(r"(\d+)%", shown)]
    assert "sessions" in shown and shares == sorted(shares) and shares[0] < 100, shown
    assert out.count("done") == 40 and "%" not in out


def test_without_waiting_events_tell_the_end(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=1, initial=0, rate=200)
    told = []
    threading.Thread(target=lambda: told.extend(_until_all(lab)), daemon=True).start()
    time.sleep(0.2)
    said = []

    def steps():
        time.sleep(0.3)
        said.append(dysco("reconfigure", "--at", "client", "--all", "--insert", "mb1", "--no-wait"))
        wait_until(lambda: len(told) == SESSIONS, 5, "an event for each session")

    verified(lab, tmp_path, steps)
    assert said == [(0, f"{SESSIONS} started\n", "")]
    assert {e["outcome"] for e in told} == {"done"} and len({e["session"] for e in told}) == SESSIONS


def _until_all(lab):
    for event in lab.agent("client").events():
        if event["event"] in ("reconfigured", "reconfig_failed"):
            yield event


def test_a_right_anchor_that_has_left_is_told_by_the_end_of_the_chain(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=3, initial=2, rate=200)

    def steps():
        time.sleep(0.3)
        changed(lab, "mb1", remove="mb2")
        reply = lab.agent("client").request("reconfigure", all=True, chain=["mb3"], until="mb2", retries=0)
        told = {(r["outcome"], r["reason"], r["retry"]) for r in reply["results"]}
        assert told == {("refused", "the right anchor is not on the session's chain", False)}, told
        settled(lab, ("client", "mb1", "server"))
        changed(lab, "client", chain=["mb3"], until="server")

    verified(lab, tmp_path, steps)


def test_a_request_that_meets_a_pending_lock_is_held_until_that_is_decided(lab_of, tmp_path):
    """The answer to mb1's request gets lost for half a second; so long the client's request waits at mb1, without a word.
    Then mb1's is granted and the other refused, in that order."""
    lab = lab_of("chain", middleboxes=5, initial=3, rate=200)
    events = {"client": [], "mb1": []}
    for host, told in events.items():
        threading.Thread(target=lambda h=host, t=told: t.extend(_collected(lab, h)), daemon=True).start()
    time.sleep(0.2)
    answers, some = {}, []

    def ask(host, **change):
        answers[host] = lab.agent(host).request("reconfigure", sessions=some, retries=0, timeout_s=20, **change)["results"]

    def steps():
        time.sleep(0.3)
        some.extend(s["id"] for s in sessions(lab, "client")[:10])  # fewer than an agent has under way at once
        first = threading.Thread(target=ask, args=("mb1",), kwargs={"chain": ["mb5"], "until": "mb3"})
        second = threading.Thread(target=ask, args=("client",), kwargs={"chain": ["mb4"], "until": "mb2"})
        with lost(lab, "ackLock", once=False, at=f"-s {lab.topology.host('mb3').address}"):
            first.start()
            time.sleep(0.2)
            second.start()
            time.sleep(0.5)
            assert not answers
        first.join()
        second.join()

    verified(lab, tmp_path, steps)
    assert {r["outcome"] for r in answers["mb1"]} == {"done"}
    assert {(r["outcome"], r["retry"]) for r in answers["client"]} == {("refused", True)}
    granted = {e["session"]: e["ts_ns"] for e in events["mb1"] if e["event"] == "new_path_syn"}
    asked = {e["session"]: e["ts_ns"] for e in events["client"] if e["event"] == "lock_requested"}
    refused = {e["session"]: e["ts_ns"] for e in events["client"] if e["event"] == "lock_refused"}
    held = [s for s in refused if refused[s] > granted[s] and refused[s] - asked[s] > 0.3e9]
    assert len(held) == len(some), (asked, granted, refused)


def _collected(lab, host):
    yield from lab.agent(host).events()


def test_who_contends_and_retries_is_done_in_the_end(lab_of, tmp_path):
    """Both change the subsession between mb1 and mb2, again and again; the command says how often and how long."""
    lab = lab_of("chain", middleboxes=5, initial=3, rate=200)
    said = {}

    def ask(name, *words):
        said[name] = dysco("reconfigure", "--all", "--json", "--retries", "12", "--retry-pause", "0.1", *words)

    def steps():
        time.sleep(0.3)
        asks = [("client", "--at", "client", "--insert", "mb4", "--after", "mb1"),
                ("mb3", "--at", "mb3", "--replace", "mb2=mb5")]  # fmt: skip
        threads = [threading.Thread(target=ask, args=words) for words in asks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        settled(lab)

    verified(lab, tmp_path, steps)
    reasons = {(name, r["outcome"], r["reason"]) for name, (_, out, _) in said.items() for r in json.loads(out)["results"]}
    assert {outcome for _, outcome, _ in reasons} == {"done"}, reasons
    assert [outcomes(s) for s in said.values()] == [(0, ["done"] * SESSIONS)] * 2


@pytest.mark.parametrize("words", [["--retries", "-1"], ["--retry-pause", "-0.1"], ["--retry-pause", "x"]])
def test_a_retry_that_makes_no_sense(words):
    status, out, err = dysco("reconfigure", "--all", "--remove", "mb1", *words)
    assert (status, out) == (2, "")
    assert words[0] in err
