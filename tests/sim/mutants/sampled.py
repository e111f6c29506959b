# SPDX-License-Identifier: Apache-2.0
"""Wrong changes drawn by rule: every place in the core's functions where an operator applies, in an order that a seed sets.

A place's rank follows from its text, not from where it lies: what is drawn stays the same when other code moves.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator

from tests.sim.mutants.explained import ELSEWHERE
from tests.sim.mutants.mutant import CORE, Mutant

# verifier: what only the eBPF verifier wants; lock: one thread here; counters: told to people, nothing follows from them
SKIPPED = re.compile(r"KEEP\(|VARY\(|port_(un)?lock\(|port_count\(|return -?\d+;$|^#|_Static_assert|^\s*(case|default)\b")
FUNCTION = re.compile(r"^(?:INLINE|NOINLINE|static) [^=]*?(\w+)\(")
OPERATORS: dict[str, list[tuple[str, str]]] = {
    "comparison": [
        (r" < ", " <= "),
        (r" <= ", " < "),
        (r" > ", " >= "),
        (r" >= ", " > "),
        (r" == ", " != "),
        (r" != ", " == "),
        (r"\bseq_before\(", "seq_after("),
        (r"\bseq_after\(", "seq_before("),
        (r"\bseq_max\(", "seq_min("),
        (r"\bseq_min\(", "seq_max("),
    ],
    "sign": [(r" \+ ", " - "), (r" - ", " + "), (r" \+= ", " -= "), (r" -= ", " += ")],
    "logic": [(r" && ", " || "), (r"(?<!!x) \|\| ", " && ")],  # x is scratch memory: it is always there
    "constant": [(r"(?<![\w.])(0x[0-9a-f]+|\d+)(?![\w.])", "{number}")],  # that and one more
    "dropped": [(r"^(\t+)[*\w+][^{}]*;$", "{1};")],
    "swapped": [(r"\b(?!seq_max|seq_min|same_tuple)(\w+)\(([^(),]+), ([^(),]+)\)", "{1}({3}, {2})")],
    "negated": [(r"^(\t+)(.*\bif \()(.+)(\)(?: \{)?)$", "{1}{2}!({3}){4}")],
}
NO_STATEMENT = re.compile(
    r"^\t+(const |struct |static )|^\t+[us](8|16|32|64) |^\t+be(16|32) |^\t+int |^\t+(return|break|continue)\b"
)


def _bodies(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, function, line) of everything that is inside a function."""
    function, inside = "", False
    for number, line in enumerate(text.split("\n"), 1):
        found = FUNCTION.match(line)
        if found:
            function = found[1]
        if (inside and line != "}") or (found and line.endswith("}")):
            yield number, function, line
        inside = line == "{" or (inside and line != "}")


def _without_comments(text: str) -> str:
    """Blanks in their place: columns and lines stay."""
    return re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S)


def _is_whole(line: str, before: str) -> bool:
    """A statement of one line, neither the end nor the beginning of a longer one."""
    return line.count("(") == line.count(")") and before.rstrip()[-1:] in ("{", "}", ";", ")", ":", "")


def _changes(line: str, before: str) -> Iterator[tuple[str, str]]:
    """(operator, changed line) for each place of the line."""
    for operator, rules in OPERATORS.items():
        if operator == "dropped" and (NO_STATEMENT.match(line) or not _is_whole(line, before)):
            continue
        if operator == "negated" and line.count("(") != line.count(")"):
            continue
        for pattern, now in rules:
            for place in re.finditer(pattern, line):
                number = int(place[0], 0) + 1 if operator == "constant" else 0
                changed = now.format(place[0], *place.groups(), number=number)
                if changed != place[0]:
                    yield operator, line[: place.start()] + changed + line[place.end() :]


def _places() -> Iterator[tuple[str, Mutant]]:
    """Every place there is: what its rank follows from, and the mutant."""
    seen: Counter[str] = Counter()
    for header in sorted(CORE.glob("*.h")):
        before = ""
        text = header.read_text()
        original = text.split("\n")
        for number, function, line in _bodies(_without_comments(text)):
            line = line.rstrip()
            if line and not SKIPPED.search(line) and function not in ELSEWHERE:
                for operator, now in _changes(line, before):
                    what = f"{header.name} {function} {line} {now}"
                    seen[what] += 1
                    shown = line if operator == "dropped" else now
                    name = f"{header.name}, {function}(): {operator}: {shown.strip()}"
                    yield f"{what} {seen[what]}", Mutant(name, header.name, original[number - 1], now, number)
            before = line or before


def places(seed: int) -> list[Mutant]:
    """All of them in the order of a seed."""
    return [m for _, m in sorted((hashlib.sha256(f"{seed} {what}".encode()).hexdigest(), m) for what, m in _places())]
