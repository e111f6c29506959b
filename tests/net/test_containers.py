# SPDX-License-Identifier: Apache-2.0
"""Agents for OCI containers, given by a process of each (`--pid`), with the policies that they start with (`--policies`)."""

import json
import subprocess
import sys
from contextlib import ExitStack

import pytest

from dysco_ns import netns
from dysco_ns.agent.client import AgentClient
from lab.tools import bulk
from tests.net import oci
from tests.net.conftest import needs

DYSCO = [sys.executable, "-m", "dysco_ns.policy.cli"]
PORT, SESSIONS = 5001, 10


def in_container(argv):
    """The command as it is inside: its file is in /build, its report in /out."""
    return ["/build/bulk", *argv[1:]]


@pytest.fixture
def net(tmp_path):
    """client, box and server in containers; the client waits until it is told to begin."""
    needs(oci.missing)
    serve = in_container(bulk.server_command("0.0.0.0", PORT, "/out/server.jsonl"))
    with oci.star(tmp_path, {"client": None, "box": None, "server": serve}) as found, ExitStack() as stack:
        policies = tmp_path / "policies.json"
        policies.write_text(json.dumps([{"filter": f"tcp dst port {PORT}", "chain": [found["box"].address]}]))
        for name, c in found.items():
            words = ["agent", "run", "--pid", str(c.pid), "--name", name]
            words += ["--policies", str(policies)] if name == "client" else []
            c.daemon = stack.enter_context(subprocess.Popen([*DYSCO, *words], stdout=subprocess.PIPE, text=True))
            stack.callback(c.daemon.terminate)
            c.agent = AgentClient(netns.socket_path(c.netns))
        assert all(c.daemon.stdout.readline() == "ready\n" for c in found.values())
        yield found


@pytest.mark.long
def test_sessions_between_containers_are_chained_and_reconfigured(net, tmp_path):
    client, box, server = net.values()
    talk = in_container(bulk.client_command(server.address, PORT, "/out/client.jsonl", sessions=SESSIONS, seconds=60))
    with subprocess.Popen([*client.inside, *talk], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"connected {SESSIONS}\n"
        assert len(box.agent.request("sessions")["sessions"]) == SESSIONS
        for change in ({"remove": box.address}, {"insert": [box.address]}):
            results = client.agent.request("reconfigure", all=True, **change)["results"]
            assert [r["outcome"] for r in results] == ["done"] * SESSIONS, results
        process.terminate()
        process.wait(60)
    reports = [bulk.read_report(tmp_path / f"{name}.jsonl") for name in ("client", "server")]
    compared = bulk.compare([tuple(reports)])
    assert (compared.sessions, compared.clean) == (SESSIONS, True), compared.reasons


@pytest.mark.long
def test_policies_from_the_start_are_all_right_or_the_agent_does_not_start(net, tmp_path):
    client = net["client"]
    listed = client.agent.request("policy_list")["policies"]
    assert [(p["filter"], p["chain"]) for p in listed] == [(f"tcp dst port {PORT}", [net["box"].address])]
    bad = tmp_path / "bad.json"
    for text, why in (("[{]", "not JSON"), ('[{"filter": "tcp dst prt 5"}]', "prt"), ('{"filter": "tcp"}', "a list of policies")):
        bad.write_text(text)
        words = [*DYSCO, "agent", "run", "--pid", str(net["server"].pid), "--policies", str(bad)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode in (1, 2) and done.stderr.count("\n") == 1 and why in done.stderr, done.stderr
    assert net["server"].agent.request("policy_list")["policies"] == []
