# SPDX-License-Identifier: Apache-2.0
"""Verdicts of earlier runs: a long run that is stopped goes on where it was.  A change of the model forgets them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path

from tests.model import FLAGS, MODELS, Configuration, Verdict, library


def model_text(path: Path) -> str:
    """The model with what it includes."""
    text = path.read_text()
    return text + "".join(model_text(MODELS / name) for name in re.findall(r'^#include "(.+)"', text, re.M))


def key_of(configuration: Configuration) -> str:
    what = [model_text(configuration.source), *configuration.defines(), *FLAGS]
    if configuration.model == "core":
        what.append(library.text(configuration.mutant))
    if configuration.reduced:
        what.append("reduced")
    return hashlib.sha256("\n".join(what).encode()).hexdigest()


class Kept:
    def __init__(self, path: Path, again: bool = False) -> None:
        self._path = path
        self._found: dict[str, dict[str, object]] = {}
        if path.exists() and not again:
            self._found = json.loads(path.read_text())

    def get(self, configuration: Configuration) -> Verdict | None:
        found = self._found.get(key_of(configuration))
        return Verdict(**found) if found else None  # type: ignore[arg-type]

    def put(self, configuration: Configuration, verdict: Verdict) -> None:
        """Only what is finished: a search that has run out of memory may be tried again."""
        if not verdict.complete and not verdict.objection:
            return
        self._found[key_of(configuration)] = asdict(verdict)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._found, indent=1) + "\n")
        new.replace(self._path)
