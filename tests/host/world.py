# SPDX-License-Identifier: Apache-2.0
"""Hosts whose agents are the core and the agents' own Python code, a network between them, and a clock.

A host's stack is TCP end points, a forwarder, or a forwarder that changes addresses (`rewrite(segment, frame)`).  Frames go to
the host that has their destination, or by `via`, as routes say.  Whatever has been on a wire is judged at the end (lab/judge.py).
"""

import heapq
import itertools

from dysco_ns.agent.changes import RETRY_BY_ITSELF
from dysco_ns.agent.core import Core, address_of_value, beat_txid
from dysco_ns.agent.daemon import IDLE_S
from dysco_ns.agent.domains import Domains
from dysco_ns.agent.expiry import LOOK_S, Expiry
from dysco_ns.agent.leader import CONTROL_RIGHT_OF, Leader
from dysco_ns.agent.parking import Waiting
from dysco_ns.agent.policies import Policies
from dysco_ns.netns import Interface
from lab.judge import ACK, CONTROL_OPTION, RST, SYN, judge
from tests.host.library import DROPPED, EGRESS, EGRESS_PARKED, INGRESS, LOCAL, ON, PARKED, HostLibrary
from tests.host.segments import frame_of, segment_of
from tests.host.tcp import Socket, same

DELAY_S, TICK_S, WRITE_S, WRITE_BYTES = 0.0005, 0.01, 0.008, 1500
PORT, TRIES, PAUSE_S = 5001, 6, 0.05


class Host:
    """One host; without `agent` its frames meet no core."""

    def __init__(self, world, name, *addresses, agent=True, key=None, domains=None, idle_s=IDLE_S):
        self.world, self.name, self.addresses, self.index = world, name, addresses, len(world.hosts)
        self.via, self.sockets, self.listening, self.rewrite, self.dead = {}, {}, set(), None, False
        self.accepted = []  # sockets that have been asked for
        self.events, self.outcomes, self.settings = [], [], {"throttle": None, "parking": 0}
        self.core = None
        if agent:
            self._start(key, domains or {}, idle_s)

    # ---- the agent: what daemon.py does with these parts, with our clock ----

    def _start(self, key, domains, idle_s):
        self.library = HostLibrary(self.addresses[0], self.world.seed * 100 + self.index, self._sent, self.world.clock)
        self.core = Core(self.library)
        self.domains = Domains(self.core, key, domains)
        self.domains.prepare()
        self.slots = 0
        path = self.world.directory / f"{self.name}.policies"
        self.policies = Policies(self.core, self.world.names, self.configure, path)
        self.leader = Leader(self.core, self.outcomes.append, self.world.clock)
        self.expiry = Expiry(self.core, idle_s, clock=self.world.clock)
        self.waiting = Waiting()
        self._events = self.core.event_ring(self._event)
        self.configure()
        self.world.every(TICK_S, lambda: self._does(lambda: self.leader.tick(self.world.now)))
        self.world.every(LOOK_S, lambda: self._does(self.expiry.step))

    def _does(self, what):
        if not self.dead:
            what()
            self._events.consume()

    def configure(self, slots=None, **settings):
        """Writes struct config again, with these settings and those from before."""
        self.slots = self.slots if slots is None else slots
        self.settings |= settings
        interfaces = [Interface(1, "eth0", bytes(6), address) for address in self.addresses]
        self.core.configure(interfaces, domains=self.domains.fields(), events=True, policy_slots=self.slots, **self.settings)

    def _event(self, event):
        self.events.append(event)
        self.leader.handle(event, self.world.now)
        if event.kind in ("trigger", "moved"):
            flags = CONTROL_RIGHT_OF if event.kind == "trigger" else 0
            self.leader.start(event.nonce, {"right_anchor": address_of_value(event.value), "flags": flags})
        elif event.kind in ("unpark", "cancelled"):
            self._unpark(event)
        elif event.kind == "session_silent":
            self.core.command("heartbeat", nonce=event.nonce, txid=beat_txid())

    def _unpark(self, event):
        self._release(event.nonce)
        if event.kind == "unpark":
            self.core.command("unpark", nonce=event.nonce, txid=event.txid, side=event.side)
            self._release(event.nonce)

    def _release(self, nonce):
        for frame in self.waiting.take(nonce):
            self._leave(frame, 0, EGRESS_PARKED)

    def _heard(self):
        if self.core:
            self._events.consume()

    def reconfigure(self, nonce, until=None, migrate=None, seconds=10.0, **fields):
        """Leads a change and waits for its end, tries again as agents do; returns outcome and reason.  `chain`: the new
        middleboxes, by name; `until`: the right anchor; `remove`: takes out the right neighbour."""
        for _ in range(TRIES):
            result = self.begin(nonce, until, migrate, **fields)
            self.world.run_until(lambda r=result: r, seconds)
            if result[0].reason not in RETRY_BY_ITSELF:
                break
            self.world.run(PAUSE_S)
        return result[0].outcome, result[0].reason

    def begin(self, nonce, until=None, migrate=None, chain=(), remove=False):
        """The same without waiting: its outcome comes into the list."""
        s, result = self.core.session(nonce), []
        chain = [self.world.names.get(name, name) for name in chain]
        change = {"chain": chain, "chain_length": len(chain), "flags": CONTROL_RIGHT_OF if remove else 0}
        change["right_anchor"] = self.world.names.get(until, until) if until else s["right_sub"]["dst"]
        self.leader.start(nonce, change, result.append, migrate)
        self._heard()
        return result

    # ---- frames ----

    def arrives(self, frame, s):
        if self.dead:
            return
        self.world.captured[self.name].append(s)
        way, tag = ON, 0
        if self.core:
            way, frame, tag = self.library.pass_(INGRESS, frame)
        if way in (ON, LOCAL):
            self._deliver(frame, tag)
        elif way != DROPPED:
            self.world.wire(self, frame)
        self._heard()

    def _deliver(self, frame, tag):
        s = segment_of(frame, self.world.now)
        if self.rewrite:
            frame = self.rewrite(s, frame)
            if frame is None:
                return
            s = segment_of(frame, self.world.now)
        if s.dst[0] not in self.addresses:
            self._leave(frame, tag)
        elif found := self._socket(s):
            found.hear(s)
        elif not s.flags & RST:
            self.world.faults.append(f"{self.name} was given a segment for nobody: {s}")

    def _socket(self, s):
        found = self.sockets.get((s.dst, s.src))
        fresh = not found or found.over or found.reset
        if fresh and s.flags & (SYN | ACK) == SYN and s.dst[1] in self.listening:
            found = Socket(self.world, s.dst, s.src, self.sends, self.world.fresh_seed(), opens=False)
            self.sockets[(s.dst, s.src)] = found
            self.accepted.append(found)
        return found

    def sends(self, s):
        self._leave(frame_of(s), 0)

    def _leave(self, frame, tag, how=EGRESS):
        if self.dead:
            return
        way = ON
        if self.core:
            way, frame, _ = self.library.pass_(how, frame, tag)
        if way == PARKED:
            s = segment_of(frame)
            self.waiting.put(self.core.session_of(s.src, s.dst), frame)
        elif way == LOCAL:
            self._deliver(frame, 0)
        elif way != DROPPED:
            self.world.wire(self, frame)
        self._heard()

    def _sent(self, way, frame, tag):
        """What the core has sent beside the frame of a pass."""
        self._deliver(frame, tag) if way == LOCAL else self.world.wire(self, frame)

    def connect(self, address, port=PORT, sport=None, local=None, **options):
        source = (local or self.addresses[0], sport or self.world.fresh_port())
        socket = self.sockets[(source, (address, port))] = Socket.__new__(Socket)
        socket.__init__(self.world, source, (address, port), self.sends, self.world.fresh_seed(), **options)
        return socket

    # ---- what is known of it ----

    def sessions(self):
        return dict(self.core.sessions())

    def nonce(self, socket):
        return self.core.session_of(socket.local, socket.remote)

    def told(self, kind):
        return [e for e in self.events if e.kind == kind]

    @property
    def counters(self):
        return self.core.counters()


class World:
    """A network of hosts; `lost(host, segment)` says what gets lost on the wire that a host sends on."""

    def __init__(self, directory, seed=1):
        self.directory, self.seed = directory, seed
        self.now, self.hosts, self.names, self.addresses = 1000.0, {}, {}, {}
        self._heap, self._order, self._seeds = [], itertools.count(), itertools.count(seed * 1000)
        self._ports = itertools.count(40000)
        self.faults, self.captured, self.quiet = [], {}, False
        self.lost = lambda host, segment: False

    def clock(self):
        return self.now

    def fresh_seed(self):
        return next(self._seeds)

    def fresh_port(self):
        return next(self._ports)

    def add(self, name, *addresses, **settings):
        """A host; its address is drawn from its place if none is given."""
        addresses = addresses or (f"10.0.{len(self.hosts)}.2",)
        self.names[name] = addresses[0]
        host = self.hosts[name] = Host(self, name, *addresses, **settings)
        self.captured[name] = []
        self.addresses |= dict.fromkeys(addresses, host)
        return host

    def chain(self, *names, **settings):
        """Hosts with agents; those in the middle forward."""
        return [self.add(name, **settings) for name in names]

    # ---- time ----

    def after(self, seconds, what):
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), what))

    def every(self, seconds, what):
        def again():
            what()
            self.after(seconds, again)

        self.after(seconds, again)

    def _step(self):
        self.now, _, what = heapq.heappop(self._heap)
        what()

    def run(self, seconds):
        until = self.now + seconds
        while self._heap[0][0] <= until:
            self._step()
        self.now = until

    def run_until(self, condition, seconds=10.0):
        until = self.now + seconds
        while not condition():
            assert self.now < until, f"not within {seconds} s"
            self._step()

    # ---- wires ----

    def wire(self, host, frame):
        s = segment_of(frame, self.now)
        self.captured[host.name].append(s)
        if self.lost(host, s):
            return
        to = self.hosts.get(host.via.get(s.dst[0], host.via.get("default", ""))) or self.addresses.get(s.dst[0])
        if to is None:
            self.faults.append(f"{host.name} sent a segment to nobody: {s}")
        else:
            self.after(DELAY_S, lambda: to.arrives(frame, s))

    def seen(self, host, condition=lambda s: True):
        """What has passed beside a host, without signalling."""
        return [s for s in self.captured[host] if CONTROL_OPTION not in s.options and condition(s)]

    # ---- sessions ----

    def talk(self, client, server, address=None, count=1, port=PORT, at_server=None, **options):
        """Sessions that both ends keep busy; pairs of sockets."""
        server.listening.add(at_server or port)
        pairs = []
        for _ in range(count):
            here = client.connect(address or server.addresses[0], port, **options)
            before = len(server.accepted)
            self.run_until(lambda h=here, b=before: h.state == "open" and len(server.accepted) > b)
            there = server.accepted[before]
            self.run_until(lambda t=there: t.state == "open")
            pairs.append((here, there))
        self.every(WRITE_S, lambda: None if self.quiet else [s.write(WRITE_BYTES) for pair in pairs for s in pair if s.talks])
        self.run(0.02)
        return pairs

    def finish(self, pairs, seconds=20.0, allowed=(), forgiven=None):
        """Every session ends, and each end has heard what the other has said.  `allowed`: of faults that a capture shows,
        `forgiven`: how faults begin of which an end host complains."""
        for socket in itertools.chain(*pairs):
            socket.close()
        self.run_until(lambda: all(s.over for pair in pairs for s in pair), seconds)
        self.judge(pairs, allowed, forgiven)

    def judge(self, pairs, allowed=(), forgiven=None):
        assert all(same(*pair) for pair in pairs), "an end has not heard what the other has said"
        assert min(len(s.heard) for pair in pairs for s in pair) > 0
        faults = [f"{fault} (at {s.local})" for pair in pairs for s in pair for fault in s.faults]
        assert [fault for fault in faults if not (forgiven and fault.startswith(forgiven))] == []
        assert not any(s.reset for pair in pairs for s in pair)
        self.judge_wires(allowed)

    def judge_wires(self, allowed=()):
        """Nothing came where nobody waits for it, and whoever stands beside a host sees ordinary connections; `allowed` are
        names of faults (lab/judge.py) that the test has provoked."""
        assert self.faults == []
        for name, captured in self.captured.items():
            for path in judge(captured).paths:
                left_out = {"echo_above_max", *allowed} | ({"early_bytes_max"} if name.startswith("mb") else set())
                faults = {f: n for f, n in path.faults(lossless=True).items() if f not in left_out}  # as tests/net/watch.py
                assert not faults, f"{name}: {path.left} > {path.right}: {faults}"

    def emptied(self, *hosts, seconds=100.0):
        """Every table is empty in the end, of these hosts or of all."""
        chosen = [h for h in hosts or self.hosts.values() if h.core]
        for host in chosen:
            host.expiry.linger(1.0)
        until = self.now + seconds
        while left := {h.name: h.core.table_sizes() for h in chosen if any(h.core.table_sizes().values())}:
            assert self.now < until, f"still in the tables: {left}"
            self.run(1.0)

    def free(self):
        for host in self.hosts.values():
            if host.core:
                host.library.free()
