# SPDX-License-Identifier: Apache-2.0
"""This tree as it is now, changes that are not committed included, packed for the machines."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from lab.results import ROOT
from lab.tool import run

LIST = ".files"  # in the tree there: what of it is ours, for the next time
LEFT_OUT = ("results/", "notebooks/")


def pack(to: Path) -> None:
    """ToolFailed if this tree is not git's."""
    listed = run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]).split("\0")
    names = sorted(name for name in listed if name and not name.startswith(LEFT_OUT) and (ROOT / name).is_file())
    with tarfile.open(to, "w:gz", compresslevel=1) as archive:
        for name in names:
            archive.add(ROOT / name, name, recursive=False)
        data = "\0".join(names).encode()
        entry = tarfile.TarInfo(LIST)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
