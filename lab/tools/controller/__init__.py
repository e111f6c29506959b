# SPDX-License-Identifier: Apache-2.0
"""controller: rules for each session, by os-ken, as SIMPLE and StEERING have them.  Its command line, and what it is told."""

from __future__ import annotations

import sys
from pathlib import Path

PORT = 6653
ADDRESS = f"tcp:127.0.0.1:{PORT}"
COOKIE = 0x5E55  # of the rules of sessions
IDLE_S = 60  # a rule that nothing has matched for so long goes
ASKING, SESSION, UNKNOWN = 10, 20, 5  # priorities: what is asked about, rules of sessions, what no session's rule knows


def command(told: Path) -> list[str]:
    """`told`: a file with what it must know (lab/steering.py writes it)."""
    return [sys.executable, "-u", "-m", "lab.tools.controller", str(told)]
