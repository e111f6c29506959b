# SPDX-License-Identifier: Apache-2.0
"""One machine at the other end of ssh: commands, processes with signals, its agent's socket.  One connection for all of it."""

from __future__ import annotations

import itertools
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.network import LabFailed
from lab.results import ROOT
from lab.tool import ToolFailed, run

OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15", "-o", "StreamLocalBindUnlink=yes")
CONNECT_S = 20.0
NOTES = "/run/dysco/testbed"  # on each machine: what far.sh notes
SCRIPT = Path(__file__).with_name("far.sh")


def options(config: Path | None) -> list[str]:
    """What every ssh here is told."""
    return [*(("-F", str(config)) if config else ()), *OPTIONS]


class FarProcess(subprocess.Popen[str]):
    """A process on a machine: the ssh client here stands for it, signals go there."""

    def __init__(self, far: Far, identity: str, argv: Sequence[str], **given: Any) -> None:
        self._far, self._identity = far, identity
        super().__init__(far.command(["run", identity, *argv]), text=True, **({"stdin": subprocess.DEVNULL} | given))

    def send_signal(self, sig: int) -> None:
        if self.poll() is not None:
            return
        try:
            self._far.note("signal", self._identity, signal.Signals(sig).name.removeprefix("SIG"))
        except ToolFailed:  # the connection has gone, and the process with it or not: `clean` looks
            super().send_signal(sig)


class Far:
    """One machine, connected until close().  `folder`: for sockets here; `tree`: where our tree lies there."""

    def __init__(self, name: str, target: str, config: Path | None, folder: Path, tree: str) -> None:
        self.name, self._target, self._tree = name, target, tree
        self._control, self.agent = folder / f"{name}.ssh", folder / f"{name}.sock"
        self._ssh = ["ssh", *options(config), "-S", str(self._control)]
        self._ids = itertools.count()
        self._master: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """LabFailed if the machine does not answer."""
        self._master = subprocess.Popen([*self._ssh, "-M", "-N", self._target], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)  # fmt: skip
        until = time.monotonic() + CONNECT_S
        while not self._control.exists():
            if self._master.poll() is not None or time.monotonic() > until:
                said = self._master.stderr.read().strip() if self._master.poll() is not None and self._master.stderr else ""
                self.close()
                raise LabFailed(f"{self.name}: ssh {self._target}: {said.splitlines()[-1] if said else 'does not answer'}")
            time.sleep(0.02)

    def close(self) -> None:
        if self._master:
            self._master.terminate()
            self._master.wait()
            if self._master.stderr:
                self._master.stderr.close()

    # ---- commands ----

    def there(self, argv: Sequence[str]) -> list[str]:
        """The same words with the machine's paths of our tree."""
        return [self._tree + word.removeprefix(str(ROOT)) if word.startswith(f"{ROOT}/") else word for word in argv]

    def ssh(self, argv: Sequence[str]) -> list[str]:
        """The command line here of a command there, in the tree."""
        return [*self._ssh, self._target, f"cd {shlex.quote(self._tree)} && exec {shlex.join(self.there(argv))}"]

    def command(self, words: Sequence[str]) -> list[str]:
        """The command line here of a word of far.sh there."""
        return self.ssh([str(SCRIPT), f"{NOTES}/{self.name}/run", *words])

    def run(self, argv: Sequence[str], stdin: str | None = None) -> str:
        return run(self.ssh(argv), stdin)

    def note(self, *words: str) -> str:
        """A word of far.sh; what it says.  ToolFailed if it fails."""
        return run(self.command(words))

    def popen(self, argv: Sequence[str], **given: Any) -> FarProcess:
        return FarProcess(self, f"{Path(argv[0]).name}-{next(self._ids)}", argv, **given)

    # ---- the agent ----

    def namespace(self) -> int:
        """The number of the network namespace that ssh leads to."""
        return int(self.run(["stat", "-Lc", "%i", "/proc/self/ns/net"]))

    def forward_agent(self, namespace: int) -> None:
        """From now on the socket `agent` here is that of the agent there."""
        run([*self._ssh, "-O", "forward", "-L", f"{self.agent}:/run/dysco/{namespace}.sock", self._target])

    def end_forward(self, namespace: int) -> None:
        run([*self._ssh, "-O", "cancel", "-L", f"{self.agent}:/run/dysco/{namespace}.sock", self._target])
        self.agent.unlink(missing_ok=True)
