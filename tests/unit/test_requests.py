# SPDX-License-Identifier: Apache-2.0
"""Whatever comes on an agent's socket is answered in one line, and afterwards the agent is as well as before."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dysco_ns.agent import daemon as daemons
from dysco_ns.agent import requests
from dysco_ns.agent.leader import Outcome
from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT, TABLES
from dysco_ns.ebpf.maps import Integer

REFUSED_LOCKED = 4
LEFT, RIGHT = 0x1111, 0x2222  # a proxy's two sessions
ENDS = {"src": "10.0.0.2", "dst": "10.0.1.2", "sport": 40000, "dport": 80}


class Table:
    """A table in memory; keys and values are packed as for the kernel."""

    def __init__(self, key, value):
        self.key, self.value, self.entries = key, value, {}

    def most(self):
        return 4096

    def raw(self, key, bytes_):
        return bytes(bytes_)

    def get(self, key):
        found = self.entries.get(self.key.encode(key))
        return found and self.value.decode(found)

    def put(self, key, value):
        self.entries[self.key.encode(key)] = self.value.encode(value)

    def items(self):
        return [(self.key.decode(k), self.value.decode(v)) for k, v in self.entries.items()]


class Memory:
    """A data path that refuses every command; it has the two sessions of a proxy."""

    marks = True

    def __init__(self):
        self.btf = Btf(OBJECT)
        self.tables = {name: Table(*map(self._codec, kinds)) for name, kinds in TABLES.items()}
        for nonce, sub in ((LEFT, "left_sub"), (RIGHT, "right_sub")):
            self.map("session_table").put(nonce, {"left_tuple": ENDS, "right_tuple": ENDS, sub: ENDS, "flags": 4})

    def _codec(self, kind):
        return Integer(kind) if isinstance(kind, int) else self.btf.layout(kind)

    def map(self, name):
        return self.tables[name]

    def attach(self, ifindex):
        return "nowhere"

    def release(self, nonce):
        return 0

    def statistics(self):
        return {"backend": "memory"}

    def run(self, name, data):
        return REFUSED_LOCKED, 0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(daemons, "open_backend", lambda *_: Memory())
    patch.setattr(daemons.netns, "policies_path", lambda _: tmp_path_factory.mktemp("agent") / "policies")

    async def changed(daemon, nonce, fields, patience, migration=None):
        if s := daemon.core.session(nonce):
            daemon.core.command("reconfigure", nonce=nonce, txid=1, **fields(s))
        return Outcome(nonce, "refused", "locked")

    patch.setattr(requests, "change_session", changed)
    yield daemons.Daemon(daemons.Settings("host", key=b"0123456789abcdef", names={"mb1": "10.0.1.2"}))
    patch.undo()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
HOST = st.sampled_from(["mb1", "10.0.1.2", "10.0.9.9", "t", "nobody", ""])
END = st.tuples(HOST, st.integers(-1, 70000), HOST, st.integers(-1, 70000)).map(list)
POLICY = st.fixed_dictionaries({"filter": st.sampled_from(["tcp", "udp or"])}, optional={"chain": st.lists(HOST)})
MEANT = {
    "session": st.sampled_from([f"{LEFT:016x}", f"{RIGHT:016x}", "0", "xyz", "f" * 17]),
    "sessions": st.lists(st.sampled_from([f"{LEFT:x}", "-1", "f" * 40]), max_size=3),
    "match": st.sampled_from(["tcp", "tcp dst port 80", "tcp prt 5", "\0", ""]),
    "filter": st.sampled_from(["tcp", "ip[8] % 2 = 1", "host nowhere.invalid", "("]),
    "chain": st.lists(HOST, max_size=10),
    "insert": st.lists(HOST, max_size=10),
    "members": st.lists(HOST, max_size=18),
    "replace": st.dictionaries(HOST, st.lists(HOST, max_size=3), max_size=2),
    "remove": HOST,
    "until": HOST,
    "name": st.sampled_from(["t", "mb1", "x" * 300]),
    "choose": st.sampled_from(["fewest", "round-robin", "?"]),
    "in": END,
    "out": END,
    "tuple": END,
    "policies": st.lists(POLICY, max_size=70),
    "file": st.sampled_from(["/dev/zero", "/", "/nonexistent", "\0", "/dev/null"]),
}  # fmt: skip
NUMBERS = ("id", "number", "timeout_s", "retries", "retry_pause_s", "heartbeat_s", "linger_s", "throttle", "delta_ab", "delta_ba")
LARGE = st.sampled_from([0, 1, -1, 2**31, 2**32 - 1, 2**32, 2**64, 1e9, 1e300, float("inf"), float("nan")])
FIELDS = {name: meant | VALUES for name, meant in MEANT.items()}
FIELDS |= dict.fromkeys(NUMBERS, LARGE | VALUES)
OTHERS = ("all", "wait", "first", "use", "domain", "on_no_agent", "ends_at", "tag", "migrate", "from", "to")
FIELDS |= dict.fromkeys(OTHERS, VALUES)
OPS = st.sampled_from(sorted(requests.HANDLERS.keys() - {"stop"}))
REQUESTS = st.builds(lambda op, fields: {"op": op, **fields}, OPS | VALUES, st.fixed_dictionaries({}, optional=FIELDS))


async def _answered(daemon, line):
    return await asyncio.wait_for(requests.answer(daemon, requests.parse(line)), 5)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(request=REQUESTS)
def test_any_request_is_answered_in_one_line_and_harms_nothing(daemon, request):
    line = json.dumps(request).encode()
    answer = asyncio.run(_answered(daemon, line))
    assert isinstance(answer["ok"], bool)
    assert answer["ok"] or "\n" not in answer["error"]
    assert b"\n" not in json.dumps(answer).encode()
    daemon.configure()
    daemon.expiry.step()


@given(line=st.binary(max_size=200) | st.integers(1, 200000).map(lambda n: b"[" * n) | st.just(b"1" * 5000))
def test_a_line_that_is_no_request_is_none(line):
    assert requests.parse(line) == {} or isinstance(requests.parse(line), dict)
