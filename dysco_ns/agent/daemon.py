# SPDX-License-Identifier: Apache-2.0
"""The daemon: one asyncio loop that serves a unix socket, hears the data path's events and keeps its timers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dysco_ns import netns
from dysco_ns.agent import requests
from dysco_ns.agent.backends import forget, names_behind, open_backend
from dysco_ns.agent.changes import Patience, change_session
from dysco_ns.agent.core import FIRST_PORT, MAX_INTERFACES, PORTS, Core, Event, Events, address_of_value, beat_txid
from dysco_ns.agent.domains import Domains
from dysco_ns.agent.expiry import Expiry
from dysco_ns.agent.hops import Hops
from dysco_ns.agent.leader import CONTROL_GO, CONTROL_RIGHT_OF, PARK, Leader, Outcome
from dysco_ns.agent.migration import Migration
from dysco_ns.agent.parking import parking_of
from dysco_ns.agent.policies import Policies
from dysco_ns.agent.triggers import Triggers
from dysco_ns.ebpf.btf import Btf

LINE_BYTES = 1 << 20
HOPS_S = 1.0
SWEEP_S = 10.0
READ_S = 0.25
CLOSE_AGAIN_S, CLOSE_UNTIL_S = 0.2, 10.0
UNPARK_TRIES, UNPARK_PAUSE_S = 40, 0.0005
EVENT_BACKLOG = 20000
IDLE_S = 2 * 3600.0


@dataclass(frozen=True)
class Settings:
    """What an agent is told when it starts."""

    name: str
    key: bytes | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    idle_s: float = IDLE_S
    domains: Mapping[str, bytes | None] = field(default_factory=dict)  # network -> key; `key` is everybody else's
    heartbeat_s: float = 0.0  # silence after which neighbours are asked whether they have a session still; 0: never
    throttle: int | None = None  # most bytes of window that senders here are shown while a session is reconfigured
    backend: str = "ebpf"
    poll: bool = False  # dpdk: never sleeps
    interfaces: tuple[str, ...] = ()  # that it may touch; none: all that are up and have an address
    workers: int = 1  # dpdk: cores


class Daemon:
    """The agent of the network namespace in which it is made."""

    def __init__(self, settings: Settings, btf: Btf | None = None) -> None:
        self.settings = settings
        self.namespace = netns.inode(netns.path_of())
        self.socket_path = netns.socket_path(self.namespace)
        self.core = Core(
            open_backend(settings.backend, self.namespace, btf, settings.poll, settings.workers, settings.interfaces)
        )
        self._names = names_behind(settings.backend, settings.interfaces)
        self.interfaces = self._seen = own_interfaces(self._names)
        self.policies = Policies(self.core, settings.names, self.configure, netns.policies_path(self.namespace))
        self.leader = Leader(self.core, self._outcome)
        self.hops = Hops(self.core)
        self.listeners: set[asyncio.Queue[dict[str, Any]]] = set()
        self._poke = asyncio.Event()  # something may be due sooner than the timers think
        self._stopping: asyncio.Event | None = None
        self.lost = False  # the data path has ended
        self.domains = Domains(self.core, settings.key, settings.domains)
        self.throttle = settings.throttle
        self.triggers = Triggers(self.core)
        self._work: set[asyncio.Future[Any]] = set()
        self.tag_option = not self.core.programs.marks
        self.parking = parking_of(self.core)
        self.expiry = Expiry(self.core, settings.idle_s, settings.heartbeat_s)

    # ---- life ----

    def attach(self) -> None:
        """Puts the data path on every interface: from here on it works without us."""
        netns.reserve_ports(FIRST_PORT, FIRST_PORT + 2 * PORTS - 1)
        self.domains.prepare()
        self.policies.restore()
        for index in {i.index for i in self.interfaces}:
            self.core.programs.attach(index)
        self.hops.prepare(self.settings.names.values())
        self._take_over()

    def configure(self) -> None:
        """Whenever something has changed of which the core must know: a key, the throttle, listeners, policies, interfaces."""
        self.core.configure(
            self.interfaces,
            domains=self.domains.fields(),
            events=bool(self.listeners),
            throttle=self.throttle,
            parking=self.parking.index,
            tag_option=self.tag_option,
        )

    def look_around(self) -> None:
        """Interfaces and addresses may have come or gone.  What has come is taken when it is there still at the next look:
        whoever sets it up may not be done."""
        now = own_interfaces(self._names, self.interfaces)
        new = {i.index for i in now} - {i.index for i in self.interfaces}
        if new and now != self._seen:
            self._seen = now
            return
        if now == self.interfaces:
            return
        for index in new:
            try:
                self.core.programs.attach(index)
            except OSError as error:
                print(f"an interface that has come is left alone: {error}", file=sys.stderr)
        # a data path may have put another in its place
        self.interfaces = own_interfaces(self._names, self.interfaces) if new else now
        self.configure()

    def _take_over(self) -> None:
        """Picks up what an earlier daemon of this namespace left in the tables."""
        now = time.monotonic()
        for nonce, _ in self.core.sessions():
            record = self.core.record(nonce, 1)
            if record and record["phase"] < 4:
                self.leader.resume(nonce, record, now)
            for side in (0, 1) if record else (0,):
                self._go_on(nonce, side)

    def _go_on(self, nonce: int, side: int) -> None:
        """What waited at a daemon that died is lost, and TCP sends it again; nothing waits any longer."""
        record = self.core.record(nonce, side)
        if record and record["flags"] & PARK:
            self.core.command("release", nonce=nonce, txid=record["txid"], flags=CONTROL_GO)
            self._unpark_anyhow(nonce, record["txid"], side)

    async def serve(self, ready: Any = None) -> None:
        """Runs until a stop request or SIGTERM."""
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        ring = self.core.event_ring(self._event)
        loop.add_reader(ring.fileno(), self._consume, ring)
        self.socket_path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._client, self.socket_path, limit=LINE_BYTES)
        tasks = [asyncio.create_task(work) for work in (self._timers(), self._chores(), self._read(ring), self.expiry.run())]
        if ready:
            ready()
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        loop.remove_reader(ring.fileno())
        server.close()
        self.socket_path.unlink(missing_ok=True)

    def reconfigure(self, nonce: int, change: dict[str, Any], done: Any = None, migration: Migration | None = None) -> None:
        """Leads a reconfiguration of a session; `done` hears its outcome.  With a migration the state of a middlebox
        moves before new data takes the new path."""

        def begin() -> None:
            assert migration
            task = asyncio.ensure_future(migration.run(nonce))
            task.add_done_callback(ended)

        def ended(task: asyncio.Future[tuple[str, float]]) -> None:
            self.leader.migrated(nonce, *task.result())
            self._poke.set()

        self.leader.start(nonce, change, done, begin if migration else None)
        self._poke.set()

    def stop(self) -> None:
        if self._stopping:
            self._stopping.set()

    async def _timers(self) -> None:
        while True:
            now = time.monotonic()
            due = self.leader.tick(now)
            self._poke.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poke.wait(), min(max(due - time.monotonic(), 0.002), 1.0))

    def _consume(self, ring: Events) -> None:
        """A data path that is a process may end: then the interfaces are as they were, and so does the daemon."""
        try:
            ring.consume()
        except OSError as error:
            asyncio.get_running_loop().remove_reader(ring.fileno())
            print(f"{error}: its interfaces are given back", file=sys.stderr)
            self.lost = True
            self.stop()

    async def _read(self, ring: Events) -> None:
        """Events to which nobody must answer do not wake the daemon: they are read at this pace."""
        while True:
            self._consume(ring)
            await asyncio.sleep(READ_S)

    async def _chores(self) -> None:
        swept = 0.0
        while True:
            if (now := time.monotonic()) - swept > SWEEP_S:
                self.leader.sweep(self.core.records(), now)
                swept = now
            await asyncio.to_thread(self.look_around)  # pyroute2 runs a loop of its own
            await asyncio.to_thread(self.hops.refresh)
            await asyncio.sleep(HOPS_S)

    # ---- events ----

    def _event(self, event: Event) -> None:
        now = time.monotonic()
        self.leader.handle(event, now)
        self._poke.set()
        if event.kind in ("trigger", "moved"):
            self._triggered(event)
        elif event.kind in ("unpark", "cancelled"):
            self.keep([asyncio.ensure_future(self._unpark(event))])
        elif event.kind == "left_chain":
            self._close_sockets(event.nonce)
        elif event.kind == "session_silent":
            self.core.command("heartbeat", nonce=event.nonce, txid=beat_txid())
            return
        self._publish(
            {
                "ts_ns": event.time_ns,
                "event": event.kind,
                "session": f"{event.nonce:016x}",
                "txid": event.txid,
                "value": event.value,
                "side": ("left", "right")[event.side & 1],
            }
        )

    def _triggered(self, event: Event) -> None:
        """The right neighbour wants to leave the chain of a session, or a new path to itself."""
        fields = {"right_anchor": address_of_value(event.value), "flags": CONTROL_RIGHT_OF if event.kind == "trigger" else 0}
        self.keep([asyncio.ensure_future(change_session(self, event.nonce, lambda _: fields, Patience()))])

    def keep(self, work: Iterable[asyncio.Future[Any]]) -> None:
        """Holds on to work for which nobody waits, until it is done."""
        for task in work:
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _unpark(self, event: Event) -> None:
        """What waits for a session goes now: on the new path, or, if the attempt was cancelled, on the old one.  The core lets
        others pass as soon as all have gone that it has told to wait; what found no room then is not waited for."""
        gone = self.parking.release(event.nonce)
        if event.kind == "cancelled":
            return
        which = event.nonce, event.txid, event.side
        for _ in range(UNPARK_TRIES):
            if self.core.unpark(*which, gone):
                return
            if not (more := self.parking.release(event.nonce)):
                await asyncio.sleep(UNPARK_PAUSE_S)  # it may be on its way to the queue
            gone += more
        self._unpark_anyhow(*which)

    def _unpark_anyhow(self, nonce: int, txid: int, side: int) -> None:
        """Whether or not all that waited is still there."""
        while record := self.core.record(nonce, side):
            self.parking.release(nonce)
            if self.core.unpark(nonce, txid, side, record["parked"]):
                return

    def _close_sockets(self, nonce: int) -> None:
        """Both sockets of a proxy that has left read end of file now."""
        right = self.core.session(nonce)
        for session in (nonce, right["peer"]) if right and right["peer"] else ():
            self._close_socket(session, CLOSE_AGAIN_S)

    def _close_socket(self, session: int, again_s: float) -> None:
        """Gives a socket its end of file, and again until it has answered with its own or the time is over."""
        s = self.core.session(session)
        if not s:
            return
        local = s["left_sub"]["dst"] if s["left_sub"]["dport"] else s["right_sub"]["src"]
        interface = next((i for i in self.interfaces if i.address == local), self.interfaces[0])
        if self.core.command("close", interface=interface, nonce=session) == "not" and again_s < CLOSE_UNTIL_S:
            asyncio.get_running_loop().call_later(again_s, self._close_socket, session, 2 * again_s)

    def _outcome(self, outcome: Outcome) -> None:
        kind = "reconfigured" if outcome.outcome == "done" else "reconfig_failed"
        self._publish({"ts_ns": time.monotonic_ns(), "event": kind, **outcome.as_json()})

    def _publish(self, line: dict[str, Any]) -> None:
        for queue in self.listeners:
            if queue.qsize() < EVENT_BACKLOG:
                queue.put_nowait(line)

    # ---- clients ----

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):  # a line longer than LINE_BYTES
            while line := await reader.readline():
                request = requests.parse(line)
                if request.get("op") == "events":
                    await self._stream(writer)
                    break
                writer.write(json.dumps(await requests.answer(self, request)).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.listeners.add(queue)
        self.configure()  # the core tells everything from now on
        try:
            writer.write(b'{"ok": true}\n')
            while True:
                lines = [await queue.get()]
                while not queue.empty():
                    lines.append(queue.get_nowait())
                writer.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
                await writer.drain()
        finally:
            self.listeners.discard(queue)
            self.configure()


def own_interfaces(names: Collection[str], before: Sequence[netns.Interface] = ()) -> list[netns.Interface]:
    """The addresses that the agent serves, of all interfaces or of those named: those of `before` that are there still, and
    others while there is room.  Which are left out is said once."""
    found = netns.interfaces(names)
    kept = sorted(found, key=lambda i: i not in before)[:MAX_INTERFACES]  # stable: others in the kernel's order
    if (left_out := [i.address for i in found if i not in kept]) and (not before or len(before) < MAX_INTERFACES):
        print(f"{len(found)} addresses here, and an agent serves {MAX_INTERFACES}: left alone are {', '.join(left_out)}",
              file=sys.stderr, flush=True)  # fmt: skip
    return [i for i in found if i in kept]


def run_here(settings: Settings, btf: Btf | None = None, ready: Any = None) -> None:
    """Runs the agent of the current namespace until it is told to stop."""
    daemon = Daemon(settings, btf)
    daemon.attach()
    asyncio.run(daemon.serve(ready))
    if daemon.lost:
        forget(daemon.namespace)


def forget_namespace(namespace: int) -> None:
    """Removes the data path, socket and log that an agent of this namespace left; within it, the ports that it reserved are
    given back.  May run twice."""
    forget(namespace)
    if netns.inode(netns.path_of()) == namespace:
        netns.give_back_ports()
    netns.ports_path(namespace).unlink(missing_ok=True)
    netns.socket_path(namespace).unlink(missing_ok=True)
    netns.policies_path(namespace).unlink(missing_ok=True)
    netns.log_path(namespace).unlink(missing_ok=True)
