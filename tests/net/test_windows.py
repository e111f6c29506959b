# SPDX-License-Identifier: Apache-2.0
"""Window throttling (docs/protocol.md 4.10), judged by captures of what the TCP of end hosts is told."""

import threading
import time
from contextlib import ExitStack

from lab.capture import capturing_stack
from lab.judge import RST, SYN, segments
from lab.network import wait_until
from lab.tools.longline import delayed
from lab.topologies import ROUTER
from tests.net.conftest import no_session_was_reset, reconfigured, sessions, talking
from tests.windows import overshoot

ENDS = ("client", "server")
LATE_MS = 60.0


def shown_to(pcap, address):
    """What the TCP of a host has been told by each peer: time, acknowledgment and window of its segments, by their ends."""
    scales, shown = {}, {}
    for s in segments(pcap):
        if s.flags & SYN:
            scales[s.src, s.dst] = s.window_scale
        elif s.dst[0] == address and not s.flags & RST and (s.src, s.dst) in scales:
            shown.setdefault((s.src, s.dst), []).append((s.time_s, s.ack, s.window << scales[s.src, s.dst]))
    return shown


class Listeners:
    """The events of both end hosts, with time stamps as captures have them."""

    def __init__(self, lab):
        self.events = {host: [] for host in ENDS}
        self._epoch = time.time() - time.monotonic()
        for host in ENDS:
            threading.Thread(target=self._listen, args=(lab.agent(host), self.events[host]), daemon=True).start()

    def _listen(self, agent, events):
        for event in agent.events():
            events.append((event["ts_ns"] / 1e9 + self._epoch, event["event"], event["session"]))

    def at(self, kind, session, since):
        """When each of both hosts has told this since then; empty if not both have."""
        found = [min((t for t, k, s in events if (k, s) == (kind, session) and t > since), default=0) for events in
                 self.events.values()]  # fmt: skip
        return found if all(found) else []


def two_paths(listeners, session, since):
    """From when on both anchors were ready, and until when neither had drained."""
    wait_until(lambda: listeners.at("drained", session, since), 5, "drained")
    return max(listeners.at("new_path_ready", session, since)), min(listeners.at("drained", session, since))


def ends_of(session):
    src, dst = (end.rsplit(":", 1) for end in session["tuple"].split(" > "))
    return (src[0], int(src[1])), (dst[0], int(dst[1]))


def test_the_window_is_throttled_meanwhile(lab_of, tmp_path):
    """No end host is offered more than so much while both paths live; without a throttle it is.  What passes the
    middleboxes is late, so that both paths are in use for a while."""
    lab = lab_of("chain", middleboxes=2, initial=1, rate=50)
    pcaps = {host: tmp_path / f"{host}.pcap" for host in ENDS}
    listeners, seen, boxes = Listeners(lab), [], ["mb1", "mb2"]
    with ExitStack() as stack:
        for host in ENDS:
            stack.enter_context(capturing_stack(lab, host, pcaps[host]))
        stack.enter_context(delayed(lab, ROUTER, ("to-mb1", "to-mb2"), LATE_MS))
        talk = stack.enter_context(talking(lab, tmp_path, sessions=4))
        for throttle in (None, 16384, 0):
            for host in ENDS:
                lab.agent(host).request("tune", throttle=throttle)
            time.sleep(4 * LATE_MS / 1000)
            since = time.time()
            reconfigured(lab, "client", replace={boxes[0]: boxes[1:]})
            boxes.reverse()
            seen += [(throttle, ends_of(s), *two_paths(listeners, s["id"], since)) for s in sessions(lab, "client")]
    assert (talk.compared.sessions, talk.compared.clean) == (4, True), talk.compared.reasons
    assert no_session_was_reset(lab)
    shown = {host: shown_to(pcaps[host], lab.topology.host(host).address) for host in ENDS}
    worst = {}
    for throttle, (src, dst), since, until in seen:
        for host, ends in (("client", (dst, src)), ("server", (src, dst))):
            # what was sent before both were ready is late, and queues
            begin = since if throttle is None else since + 2 * LATE_MS / 1000
            beyond = overshoot(shown[host][ends], begin, until, 16384 if throttle is None else throttle)
            worst[throttle, host] = max(worst.get((throttle, host), 0), beyond)
    assert [worst[throttle, host] for throttle in (16384, 0) for host in ENDS] == [0] * 4, worst
    assert min(worst[None, host] for host in ENDS) > 0, worst
