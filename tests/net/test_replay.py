# SPDX-License-Identifier: Apache-2.0
"""What the agents of real networks tell while sessions are reconfigured is what the models allow."""

import threading
import time
from contextlib import contextmanager

import pytest

from dysco_ns.model.events import of_json, replay
from tests.net.test_reconfigure import SESSIONS, changed, verified

SLACK_NS = 5_000_000  # an agent tells after it has done, on several processors
SETTLED_S = 3.0  # what no traffic has settled settles by time: two seconds


@contextmanager
def listening(lab):
    """Everything that every agent tells, host by host; the list grows until the agents end."""
    told, hosts = [], list(lab.state.agents)

    def listen(host):
        for line in lab.agent(host).events():
            event = of_json(host, line)
            if event:
                told.append(event)

    for host in hosts:
        threading.Thread(target=listen, args=(host,), daemon=True).start()
    time.sleep(1.0)  # until the agents know that somebody listens
    yield told
    time.sleep(SETTLED_S)
    assert not [host for host in hosts if "event_lost" in lab.agent(host).request("stats")["counters"]]


def kinds(told, kind):
    return sum(event.kind == kind for event in told)


def test_reconfigurations_one_after_the_other(lab_of, tmp_path):
    lab = lab_of("chain", middleboxes=3, initial=1, rate=200)

    def steps():
        time.sleep(0.3)
        changed(lab, "client", replace={"mb1": ["mb2", "mb3"]})
        changed(lab, "mb2", remove="mb3")
        changed(lab, "client", insert=["mb1"])

    with listening(lab) as told:
        verified(lab, tmp_path, steps)
    assert len(replay(list(told), SLACK_NS).transactions) >= 3 * SESSIONS
    assert kinds(told, "lock_requested") >= 3 * SESSIONS
    assert kinds(told, "left_chain") >= 2 * SESSIONS


@pytest.mark.long
def test_contenders(lab_of, tmp_path):
    """Client to mb2 against mb1 to mb3, for every session: exactly one wins."""
    lab = lab_of("chain", middleboxes=5, initial=3, rate=200)
    asked = {
        "client": {"chain": ["mb4"], "until": "mb2"},
        "mb1": {"chain": ["mb5"], "until": "mb3"},
    }

    def ask(host):
        lab.agent(host).request("reconfigure", all=True, retries=0, timeout_s=20, **asked[host])

    def steps():
        time.sleep(0.3)
        threads = [threading.Thread(target=ask, args=(host,)) for host in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.3)

    with listening(lab) as told:
        verified(lab, tmp_path, steps)
    replay(list(told), SLACK_NS)
    refused = kinds(told, "lock_refused")
    assert kinds(told, "old_path_gone") == 2 * SESSIONS  # one winner each, at both its anchors
    assert refused + SESSIONS == kinds(told, "lock_requested")  # some are refused before they ask
