# SPDX-License-Identifier: Apache-2.0
"""Makes a run the reference run of its experiment: small enough to be committed, and proven to suffice for its figures."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.experiments.framework.runner import finish
from lab.results import RESULTS, BadRun, RunDirectory

LARGEST_RAW_BYTES = 200_000


def freeze(run: RunDirectory, parent: Path = RESULTS / "reference") -> tuple[RunDirectory, list[str]]:
    """The reference run, and the raw files that were too large for it.  BadRun if the run is not complete, or its
    summary needs one of those."""
    manifest = run.manifest()
    if manifest.get("ended", "complete") != "complete":
        raise BadRun(f"{run.path} is not complete ({manifest['ended']}): it cannot be a reference")
    place = parent / manifest["experiment"]
    fresh = place.with_name(place.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    left_out = sorted(str(p.relative_to(run.path)) for p in run.raw.rglob("*") if _too_much(p))
    shutil.copytree(run.path, fresh, ignore=lambda folder, names: [n for n in names if _too_much(Path(folder, n))])
    try:
        finish(RunDirectory.open(fresh))
    except Exception as error:
        shutil.rmtree(fresh)
        raise BadRun(f"{run.path} cannot be summed up without {', '.join(left_out) or 'more'}: {error}") from error
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)
    return RunDirectory(place), left_out


def _too_much(path: Path) -> bool:
    """Raw logs that are large, and what is no file: sockets."""
    if path.is_dir():
        return False
    return not path.is_file() or ("raw" in path.parts and path.stat().st_size > LARGEST_RAW_BYTES)
