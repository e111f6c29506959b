# SPDX-License-Identifier: Apache-2.0
"""A path dies while there are two: the session cannot be saved (paper III-G), an event tells it, nothing is left."""

import threading
import time

import pytest

from lab.impair import lost
from lab.network import wait_until
from tests.net.conftest import LONG_S, emptied, sessions, talking
from tests.net.test_reconfigure import changed, verified


def die(lab, host):
    """The host no longer hears or says anything."""
    lab.run(host, ["ip", "link", "set", "eth0", "down"])


@pytest.mark.long
@pytest.mark.parametrize(("dead", "alive"), [("mb1", ("client", "server", "mb2")), ("mb2", ("client", "server", "mb1"))])
def test_a_path_that_dies_loses_the_session_and_leaves_nothing(lab_of, tmp_path, dead, alive):
    """The old path with data in it, or the new one before the old has ended.  What had come is right at both ends."""
    lab = lab_of("chain", middleboxes=2, initial=1, rate=20)
    told = []
    for host in lab.topology.names:
        lab.agent(host).request("tune", heartbeat_s=0.5)
    threading.Thread(target=lambda: told.extend(lab.agent("client").events()), daemon=True).start()
    with talking(lab, tmp_path, sessions=5, seconds=LONG_S, wait_s=120) as talk:
        time.sleep(0.5)
        lab.agent("client").request("reconfigure", all=True, replace={"mb1": ["mb2"]}, wait=False)
        wait_until(lambda: any("two paths" in s["state"] for s in sessions(lab, "client")), 5, "two paths")
        die(lab, dead)
        wait_until(lambda: all(s["state"] == "over" for h in alive for s in sessions(lab, h)), 60, "the session over everywhere")
        for end in ("client", "server"):
            talk.reset(end)
    assert talk.what_came_is_right()
    assert "session_lost" in {e["event"] for e in told}
    emptied(lab, 30, at=alive)


@pytest.mark.parametrize("step", ["before", pytest.param("handshake", marks=pytest.mark.long)])
def test_a_middlebox_that_dies_before_the_new_path_is_ready_cancels(lab_of, tmp_path, step):
    lab = lab_of("chain", middleboxes=3, initial=1, kind="firewall", rate=200)

    def steps():
        time.sleep(0.3)
        with lost(lab, "new path SYN-ACK", once=False):
            if step == "before":
                die(lab, "mb3")
            lab.agent("client").request("reconfigure", all=True, replace={"mb1": ["mb2", "mb3"]}, retries=0, wait=False)
            if step == "handshake":
                wait_until(lambda: any("handshake" in s["state"] for s in sessions(lab, "client")), 5, "handshake")
                die(lab, "mb3")
        for host in ("client", "mb1", "server"):
            wait_until(lambda h=host: _calm(lab, h), 10, f"no lock at {host}")
        assert {s["state"] for s in sessions(lab, "mb2")} == {"over"}
        changed(lab, "client", replace={"mb1": ["mb2"]})

    verified(lab, tmp_path, steps)


def _calm(lab, host):
    return all((s["state"], s["lock"]) == ("established", "unlocked") for s in sessions(lab, host))


def test_an_agent_of_the_new_path_that_has_another_key_cancels(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=2, initial=1, kind="firewall", rate=200, hmac="on")
    key = tmp_path / "key"
    key.write_text("another key: thirty-two letters.")
    key.chmod(0o600)
    lab.agent("mb2").request("key_set", number=1, file=str(key), use=True)
    lab.agent("mb2").request("key_drop", number=0)

    def steps():
        time.sleep(0.3)
        results = lab.agent("client").request("reconfigure", all=True, replace={"mb1": ["mb2"]}, retries=0, timeout_s=20)[
            "results"
        ]
        assert {r["outcome"] for r in results} == {"cancelled"}, results
        wait_until(lambda: _calm(lab, "client") and _calm(lab, "server"), 5, "no lock")
        assert sessions(lab, "mb2") == []
        changed(lab, "client", remove="mb1")

    verified(lab, tmp_path, steps)
    counted = lab.agent("mb2").request("stats")["counters"]
    assert counted["drop_bad_signature"] > 0
