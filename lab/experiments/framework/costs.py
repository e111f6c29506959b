# SPDX-License-Identifier: Apache-2.0
"""What Dysco costs, beside the same network without it: agents come and go between the turns of one run.

Links are not shaped: the machine's CPU is the limit on purpose.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lab.network import Lab

MODES = ("baseline", "dysco", "hmac")


@contextmanager
def mode(lab: Lab, name: str) -> Iterator[None]:
    """The lab without agents (baseline), with them (dysco), with signatures too (hmac), while the block lasts."""
    if name == "baseline":
        yield
        return
    lab.start_agents(sign=name == "hmac")
    try:
        yield
    finally:
        lab.stop_agents()


def on_cpu(nth: int, command: list[str]) -> list[str]:
    """The command on the first (0) or the second of the processors that we may use."""
    ours = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(ours[min(nth, len(ours) - 1)]), *command]
