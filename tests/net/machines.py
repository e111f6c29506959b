# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the machines of a testbed: namespaces with an sshd each, a network for it, and one for experiments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import yaml

from dysco_ns import netns
from lab.measure import with_children
from lab.network import end, wait_for, wait_until
from lab.results import ROOT
from lab.testbed import ssh
from lab.testbed.ssh import SCRIPT
from lab.tool import run

NOTES, PATIENCE_S = Path(ssh.NOTES), 400
SSHD = "/usr/sbin/sshd"
PRIVILEGES = Path("/run/sshd")  # where sshd separates privileges
SYSCTLS = ("net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.data0.rp_filter",
           "net.ipv4.conf.data0.send_redirects", "net.ipv4.tcp_no_metrics_save", "net.core.somaxconn")  # fmt: skip
HOLDER = ["unshare", "-n", "sh", "-c", "echo up; exec sleep infinity"]


def _end_with_connections(sshd: subprocess.Popen[str]) -> None:
    for pid in with_children(sshd.pid)[1:]:
        os.kill(pid, signal.SIGTERM)
    end(sshd)


class Machines:
    """Machines by name, while the `with` block lasts; `inventory` is the file that describes them."""

    def __init__(self, folder: Path, hosts: dict[str, dict], **whole) -> None:
        self.folder, self.names = folder, list(hosts)
        self.inventory = folder / "testbed.yml"
        self._stack, self._pids = ExitStack(), {}
        described = {name: {"ssh": name, "address": f"10.98.0.{i}/24", "interface": "data0", **fields}
                     for i, (name, fields) in enumerate(hosts.items(), 1)}  # fmt: skip
        whole_file = {"tree": str(ROOT), "ssh_config": "ssh_config", "hosts": described, **whole}
        self.inventory.write_text(yaml.safe_dump(whole_file, sort_keys=False))

    def __enter__(self) -> Machines:
        with ExitStack() as stack:
            for name in ("switch", *self.names):
                self._pids[name] = self._namespace(stack)
            self._wire()
            self._keys()
            for number, name in enumerate(self.names, 1):
                self._sshd(stack, name, number)
                stack.callback(self._forget, name)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _namespace(self, stack: ExitStack) -> int:
        holder = subprocess.Popen(HOLDER, stdout=subprocess.PIPE, text=True)
        stack.callback(end, holder)
        wait_for(holder, "up")
        return holder.pid

    @property
    def controller(self) -> Path:
        """The namespace from which all machines are reached."""
        return netns.path_of(self._pids["switch"])

    def inside(self, name: str, argv: list[str]) -> list[str]:
        return ["nsenter", "-n", "-t", str(self._pids[name]), *argv]

    def run(self, name: str, *argv: str, stdin: str | None = None) -> str:
        return run(self.inside(name, list(argv)), stdin)

    def _wire(self) -> None:
        lines = ["link set lo up"]
        for bridge in ("control", "data"):
            lines += [f"link add {bridge} type bridge", f"link set {bridge} up"]
        lines.append("address add 10.99.0.254/24 dev control")
        for number, name in enumerate(self.names, 1):
            for bridge in ("control", "data"):
                lines += [f"link add {bridge}{number} type veth peer name {bridge}0 netns {self._pids[name]}",
                          f"link set {bridge}{number} master {bridge} up"]  # fmt: skip
        self.run("switch", "ip", "-batch", "-", stdin="\n".join(lines))
        for number, name in enumerate(self.names, 1):
            here = [f"link set {device} up" for device in ("lo", "control0", "data0")]
            here.append(f"address add 10.99.0.{number}/24 dev control0")
            self.run(name, "ip", "-batch", "-", stdin="\n".join(here))
            self.run(name, "ethtool", "-K", "data0", "tx", "off")  # as on a cable: frames are whole, and summed

    def _keys(self) -> None:
        for name in ("host_key", "user_key"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)])
        host = (self.folder / "host_key.pub").read_text()
        addresses = {name: f"10.99.0.{number}" for number, name in enumerate(self.names, 1)}
        (self.folder / "known_hosts").write_text("".join(f"{address} {host}" for address in addresses.values()))
        lines = [f"Host {name}\n  HostName {address}" for name, address in addresses.items()]
        lines.append(f"Host *\n  User root\n  IdentityFile {self.folder}/user_key\n  IdentitiesOnly yes\n"
                     f"  UserKnownHostsFile {self.folder}/known_hosts\n  StrictHostKeyChecking yes")  # fmt: skip
        (self.folder / "ssh_config").write_text("\n".join(lines) + "\n")

    def _sshd(self, stack: ExitStack, name: str, number: int) -> None:
        if not PRIVILEGES.exists():
            PRIVILEGES.mkdir(mode=0o755)
        config = self.folder / f"sshd-{name}"
        config.write_text(
            f"ListenAddress 10.99.0.{number}:22\nHostKey {self.folder}/host_key\nAuthorizedKeysFile {self.folder}/user_key.pub\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nMaxSessions 100\n"
        )
        log = self.folder / f"sshd-{name}.log"
        process = subprocess.Popen(self.inside(name, [SSHD, "-D", "-f", str(config), "-E", str(log)]), text=True)
        stack.callback(_end_with_connections, process)
        wait_until(lambda: "Server listening" in (log.read_text() if log.exists() else ""), 10, f"sshd of {name} listens")

    def _forget(self, name: str) -> None:
        """A test that has failed leaves nothing, either."""
        for folder in (NOTES / name / "run", NOTES / name / "prepare"):
            if folder.exists():
                self.run(name, str(SCRIPT), str(folder), "clean")

    def lab(self, *words: str, **options) -> subprocess.Popen[str]:
        """`dysco-lab testbed`, started beside the machines."""
        command = [sys.executable, "-m", "lab.cli", "testbed", *words, "--inventory", str(self.inventory)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(self.inside("switch", command), stdout=pipe, stderr=pipe, text=True, cwd=ROOT, **options)
        self._stack.callback(end, process)
        return process

    def ask(self, *words: str) -> str:
        """What it prints; it must succeed."""
        process = self.lab(*words)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, out + err
        return out

    def look(self) -> dict[str, list]:
        """What an experiment may have changed: addresses, routes, sysctls, what tc has attached."""
        return {name: self._look(name) for name in self.names}

    def _look(self, name: str) -> list:
        links = json.loads(self.run(name, "ip", "-json", "-4", "address"))
        seen = [(link["ifname"], sorted(a["local"] for a in link["addr_info"]), sorted(link["flags"])) for link in links]
        routes, rules = self.run(name, "ip", "route"), self.run(name, "tc", "filter", "show", "dev", "data0", "ingress")
        return [seen, routes, rules, self.run(name, "ethtool", "-k", "data0"), self.run(name, "sysctl", *SYSCTLS)]

    def notes(self) -> list[Path]:
        """What far.sh has noted and not undone yet."""
        return [path for name in self.names for path in (NOTES / name).rglob("*") if path.is_file()]
