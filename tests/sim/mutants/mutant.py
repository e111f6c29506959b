# SPDX-License-Identifier: Apache-2.0
"""A wrong change to one place of the core."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CORE = ROOT / "dysco_ns/core"


@dataclass(frozen=True)
class Mutant:
    """`was` becomes `now` in a header of the core: the only such text, or all of line number `line`."""

    name: str
    header: str
    was: str
    now: str
    line: int = 0

    def text(self) -> str:
        """The header with the change.  ValueError: the code has moved on."""
        text = (CORE / self.header).read_text()
        if self.line:
            lines = text.split("\n")
            if lines[self.line - 1] == self.was:
                lines[self.line - 1] = self.now
                return "\n".join(lines)
        elif text.count(self.was) == 1:
            return text.replace(self.was, self.now)
        raise ValueError(f"mutant '{self.name}': its place in {self.header} is there {text.count(self.was)} times")
