# SPDX-License-Identifier: Apache-2.0
"""OCI containers by runc, as Docker's engine starts them: namespaces of their own, a read-only root with the system's files.

No engine and no image is needed: the root is made of bind mounts.
"""

import json
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dysco_ns import netns
from dysco_ns.agent.daemon import forget_namespace
from lab.results import ROOT

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc")


def missing():
    return "" if shutil.which("runc") else "runc is not installed"


def _specification(bundle, argv, out):
    """What runc runs: its own default, with a command, the system's files and a directory for results."""
    (bundle / "rootfs").mkdir(parents=True)
    for path in (*SYSTEM, "/build", "/out"):
        (bundle / "rootfs" / path[1:]).mkdir()
    subprocess.run(["runc", "spec", "--bundle", str(bundle)], check=True)
    file = bundle / "config.json"
    spec = json.loads(file.read_text())
    spec["process"] |= {"terminal": False, "args": argv, "rlimits": []}
    binds = [(path, path, "ro") for path in SYSTEM] + [(str(ROOT / "build"), "/build", "ro"), (str(out), "/out", "rw")]
    spec["mounts"] += [
        {"destination": to, "type": "bind", "source": source, "options": ["rbind", mode]} for source, to, mode in binds
    ]
    file.write_text(json.dumps(spec))


class Container:
    """A running container: the first process inside, and the command line that runs another one there."""

    def __init__(self, pid, inside):
        self.pid, self.inside = pid, inside
        self.netns = netns.inode(netns.path_of(pid))

    def ip(self, *lines):
        command = ["nsenter", "-n", "-t", str(self.pid), "ip", "-batch", "-"]
        subprocess.run(command, input="\n".join(lines), text=True, check=True)


@contextmanager
def container(tmp_path, name, argv):
    """Runs a command in a container of its own inside the block; what it writes to /out is in tmp_path."""
    bundle, state = tmp_path / f"bundle-{name}", ["runc", "--root", str(tmp_path / "runc")]
    _specification(bundle, argv, tmp_path)
    pid_file, own = bundle / "pid", f"dysco-test-{name}"
    process = subprocess.Popen([*state, "run", "--bundle", str(bundle), "--pid-file", str(pid_file), own],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        while not pid_file.exists() or not pid_file.read_text():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        yield Container(int(pid_file.read_text()), [*state, "exec", own])
    finally:
        subprocess.run([*state, "kill", own, "KILL"], capture_output=True, check=False)
        process.wait(10)
        subprocess.run([*state, "delete", "--force", own], capture_output=True, check=False)
        process.stdout.close()
        process.stderr.close()


@contextmanager
def star(tmp_path, commands):
    """A container for each command, in a subnet of its own, 10.66.<i>.0/24, behind one more that routes."""
    with ExitStack() as stack:
        idle = ["sleep", "1000"]
        router = stack.enter_context(container(tmp_path, "router", idle))
        found = {}
        for i, (name, argv) in enumerate(commands.items()):
            c = found[name] = stack.enter_context(container(tmp_path, name, argv or idle))
            stack.callback(forget_namespace, c.netns)
            router.ip(f"link add to-{i} type veth peer name eth0 netns {c.pid}", f"link set to-{i} up",
                      f"address add 10.66.{i}.1/24 dev to-{i}")  # fmt: skip
            c.address = f"10.66.{i}.2"
            c.ip("link set lo up", "link set eth0 up", f"address add {c.address}/24 dev eth0",
                 f"route add default via 10.66.{i}.1")  # fmt: skip
        for c in (router, *found.values()):
            with netns.entered(netns.path_of(c.pid)):
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        yield found
