# SPDX-License-Identifier: Apache-2.0
"""Runs a tool and says what failed: command, status, what it printed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class ToolFailed(Exception):
    """A tool ended with an error."""

    def __init__(self, argv: Sequence[str], status: int, stderr: str) -> None:
        super().__init__(f"`{' '.join(argv)}` ended with {status}: {stderr.strip() or 'no message'}")
        self.status = status


def run(argv: Sequence[str], stdin: str | None = None) -> str:
    """Standard output of a command.  ToolFailed if it does not end with 0."""
    done = subprocess.run(list(argv), input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolFailed(argv, done.returncode, done.stderr)
    return done.stdout
