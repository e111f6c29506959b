# SPDX-License-Identifier: Apache-2.0
"""docs/cases.md names tests that exist."""

import re

from lab.results import ROOT

COLUMNS = {2: "host", 3: "net"}


def test_every_test_that_the_table_of_cases_names_is_there():
    rows = [line.split("|") for line in (ROOT / "docs" / "cases.md").read_text().splitlines() if line.startswith("| ")][2:]
    named = [(folder, *ref) for row in rows for at, folder in COLUMNS.items() for ref in re.findall(r"`(\w+)::(\w+)`", row[at])]
    assert len(rows) > 40
    assert len(named) > 100
    missing = [ref for folder, *ref in named
               if f"\ndef test_{ref[1]}" not in (ROOT / "tests" / folder / f"test_{ref[0]}.py").read_text()]  # fmt: skip
    assert not missing
    assert all("::" in row[3] for row in rows)
