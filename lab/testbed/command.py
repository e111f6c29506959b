# SPDX-License-Identifier: Apache-2.0
"""`dysco-lab testbed`: prepare, run, collect, clean."""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from lab.environment import MissingTool
from lab.experiments import ON_TESTBED, plan_of
from lab.results import RunDirectory, newest
from lab.topologies import BadSetting

if TYPE_CHECKING:
    from lab.testbed.inventory import Inventory

app = typer.Typer(help="Experiments on machines of your own, by Ansible and ssh (docs/testbed.md).", no_args_is_help=True)
From = Annotated[Path, typer.Option("--inventory", help="the machines: docs/testbed.md")]
PARTS = ("packages", "tree", "build")


def read(path: Path) -> Inventory:
    """The inventory.  BadInventory; MissingTool if what reads it has not been installed."""
    try:
        from lab.testbed import inventory
    except ImportError as error:
        raise MissingTool(f"testbeds need {error.name}: `.venv/bin/pip install --editable '.[testbed]'`") from error
    return inventory.read(path)


@app.command()
def prepare(
    inventory: From,
    skip: Annotated[Optional[list[str]], typer.Option(help=f"what is there already: {', '.join(PARTS)}; repeatable")] = None,
) -> None:
    """Packages, this tree, its build, huge pages, NIC drivers on every machine.  A second time changes nothing."""
    from lab.testbed import plays, tree

    machines = read(inventory)
    if unknown := set(skip or ()) - set(PARTS):
        raise BadSetting(f"--skip {unknown.pop()}: one of {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="dysco-tree-") as folder:
        archive = Path(folder) / "tree.tar.gz"
        tree.pack(archive)
        plays.play("prepare", machines, skip or (), archive=str(archive))
    print(f"prepared: {', '.join(machines.hosts)}")


@app.command()
def run(
    experiment: str,
    inventory: From,
    profile: Annotated[str, typer.Option(help="quick or paper, as `dysco-lab run`")] = "quick",
    set_: Annotated[Optional[list[str]], typer.Option("--set", help="key=value, as `dysco-lab run`")] = None,
    seed: int = 1,
    out: Annotated[Optional[Path], typer.Option(help="where the run directory is made")] = None,
    strict: Annotated[bool, typer.Option(help="claims about absolute cost and time fail the run too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print summary.json")] = False,
) -> None:
    """Runs an experiment on the machines; the same results as `dysco-lab run`, and the machines' facts in raw/hosts."""
    from lab.cli import report, settings_of
    from lab.experiments.framework import runner
    from lab.testbed.site import Machines

    machines, settings = read(inventory), settings_of(set_)
    plan_of(experiment, settings, profile)
    if experiment not in ON_TESTBED:
        raise BadSetting(f"{experiment} runs in the lab only; on a testbed there are {', '.join(ON_TESTBED)}")
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # what the plays tell is no JSON
        outcome = runner.execute(runner.Asked(experiment, profile, settings, seed, out, Machines(machines, inventory)))
        _collect(machines, outcome.run)
    report(outcome, strict, as_json)


@app.command()
def collect(
    inventory: From,
    run_dir: Annotated[Optional[Path], typer.Argument(help="a run (default: the newest one that a testbed can have)")] = None,
) -> None:
    """Facts of every machine (kernel, NIC, driver, counters, logs) into raw/hosts of a run; `run` does so by itself."""
    machines = read(inventory)
    found = RunDirectory.open(run_dir) if run_dir else max((newest(e) for e in ON_TESTBED), key=lambda r: r.path.name)
    _collect(machines, found)
    print(f"collected: {found.raw / 'hosts'}")


def _collect(machines: Inventory, run: RunDirectory) -> None:
    from lab.testbed import plays

    folder = run.raw / "hosts"
    folder.mkdir(exist_ok=True)
    plays.play("collect", machines, folder=str(folder.resolve()))


@app.command()
def clean(inventory: From) -> None:
    """Ends what runs of ours on the machines, and leaves interfaces, routes, sysctls, drivers as they were.  May run twice."""
    from lab.testbed import plays

    machines = read(inventory)
    plays.play("clean", machines)
    print(f"clean: {', '.join(machines.hosts)}")
