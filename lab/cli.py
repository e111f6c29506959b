# SPDX-License-Identifier: Apache-2.0
"""`dysco-lab`: topologies up and down, experiments, figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer
from rich.console import Console
from rich.table import Table

from lab import capture as captures
from lab import state
from lab.experiments import NAMES, find, plan_of
from lab.results import BadRun, RunDirectory, Summary, shown
from lab.testbed.command import app as testbed
from lab.testbed.errors import BadInventory, PlayFailed
from lab.topologies import DESCRIPTIONS, BadSetting, build

if TYPE_CHECKING:
    from lab.experiments.framework.runner import Outcome

app = typer.Typer(
    help="The Dysco laboratory: networks of real hosts on this machine, each with a Dysco agent.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(testbed, name="testbed")
console = Console()
Set = Annotated[Optional[list[str]], typer.Option("--set", help="key=value; `dysco-lab list` shows what there is")]
START_TIMEOUT_S = 30.0
INTERRUPTED = 130  # as shells have it


def fail(message: str, status: int = 1) -> NoReturn:
    print(f"dysco-lab: {message}", file=sys.stderr)
    raise SystemExit(status)


def need_root() -> None:
    if os.geteuid():
        fail("this makes network namespaces and needs root: run it with sudo")


def settings_of(pairs: list[str] | None) -> dict[str, str]:
    settings = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadSetting(f"--set {pair}: use key=value")
        settings[key] = value
    return settings


def running() -> state.State:
    found = state.load()
    if not found or not found.holder.alive():
        fail("no lab is running: `dysco-lab up TOPOLOGY` starts one")
    return found


def host_pid(lab: state.State, name: str) -> int:
    if name not in lab.hosts:
        fail(f"unknown host '{name}': one of {', '.join(lab.hosts)}", 2)
    return lab.hosts[name].pid


@app.command("list")
def list_() -> None:
    """Topologies and experiments, one line each."""
    for name, text in DESCRIPTIONS.items():
        topology = build(name, {})
        print(f"topology    {name:16} {text}")
        print(f"            {'':16} settings: {' '.join(f'{k}={v}' for k, v in topology.settings.items())}")
    for name in NAMES:
        print(f"experiment  {name:16} {find(name).DESCRIPTION}")
        print(f"            {'':16} settings: {' '.join(f'{k}={v}' for k, v in plan_of(name, {}, 'quick')[1].items())}")


@app.command()
def up(
    topology: str,
    set_: Set = None,
    detach: Annotated[bool, typer.Option(help="leave it running and return")] = False,
) -> None:
    """Starts a topology; without --detach it stays until Ctrl-C."""
    need_root()
    from lab.network import Lab

    built = build(topology, settings_of(set_))
    if detach:
        return _detached(lambda: Lab(built))
    with Lab(built) as lab:
        print(f"{topology} is up: {', '.join(lab.state.hosts)}.  Ctrl-C takes it down.", flush=True)
        print("In another terminal: dysco-lab status; dysco-lab exec client ...; dysco sessions --at client", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("taking it down")
    return None


def _detached(make: Callable[[], Any]) -> None:
    """Starts the lab in a process of its own that holds it until SIGTERM."""
    hear, say = os.pipe()
    if os.fork():
        os.close(say)
        word = os.read(hear, 4096).decode()  # not to the end: the hosts' shells hold the pipe too
        if word != "up":
            fail(word or "the lab did not come up")
        print("up: `dysco-lab status` shows it, `dysco-lab down` ends it")
        return
    os.setsid()
    try:
        with make():
            for fd in range(3):
                os.dup2(os.open(os.devnull, os.O_RDWR), fd)
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            os.write(say, b"up")
            os.close(say)
            signal.pause()
    except Exception as error:
        os.write(say, str(error).encode())
        os._exit(1)
    os._exit(0)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False) -> None:
    """Hosts, addresses, pids and agents of the running lab."""
    lab = running()
    rows = [
        {
            "host": name,
            "address": lab.addresses.get(name),
            "pid": process.pid,
            "agent": lab.agents[name].pid if name in lab.agents and lab.agents[name].alive() else None,
            "socket": str(state.RUN / f"{lab.namespaces[name]}.sock") if name in lab.agents else None,
        }
        for name, process in lab.hosts.items()
    ]
    if as_json:
        print(json.dumps({"topology": lab.topology, "settings": lab.settings, "hosts": rows}, indent=1))
        return
    table = Table("host", "address", "pid", "agent", title=f"{lab.topology} {lab.settings}")
    for row in rows:
        table.add_row(*(str(row[key]) if row[key] else "-" for key in ("host", "address", "pid", "agent")))
    console.print(table)


@app.command("exec", context_settings={"ignore_unknown_options": True})
def exec_(host: str, command: Annotated[list[str], typer.Argument(help="after --")]) -> None:
    """Runs a command inside a host of the running lab; its exit status."""
    need_root()
    pid = host_pid(running(), host)
    raise SystemExit(subprocess.call(["nsenter", "-n", "-t", str(pid), *command]))


@app.command()
def capture(
    hosts: Annotated[Optional[list[str]], typer.Argument()] = None,
    write: Annotated[Path, typer.Option("-w", help="file.pcapng")] = Path("capture.pcapng"),
) -> None:
    """Records every interface of the hosts (default: all) until interrupted."""
    need_root()
    lab = running()
    names = hosts or list(lab.hosts)
    captures.record({name: host_pid(lab, name) for name in names}, write)


@app.command()
def down() -> None:
    """Ends the lab, running or crashed, and removes everything that it made.  May run twice."""
    need_root()
    found = state.load()
    if not found:
        print("no lab is running")
        return
    state.clean(found, including_holder=True)
    print("down")


@app.command()
def run(
    experiment: str,
    profile: Annotated[str, typer.Option(help="quick: the same steps at a smaller time scale; paper: its parameters")] = "quick",
    set_: Set = None,
    seed: int = 1,
    out: Annotated[Optional[Path], typer.Option(help="where the run directory is made")] = None,
    strict: Annotated[bool, typer.Option(help="claims about absolute cost and time fail the run too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print summary.json")] = False,
) -> None:
    """Runs an experiment: measures, sums up, draws.  Exit status 1 if a claim of correctness or shape fails."""
    from lab.experiments.framework import runner

    asked = runner.Asked(experiment, profile, settings_of(set_), seed, out)
    plan_of(asked.name, asked.settings, asked.profile)  # wrong usage is said before what the user is not
    need_root()
    report(runner.execute(asked), strict, as_json)


def report(outcome: Outcome, strict: bool, as_json: bool) -> NoReturn:
    """Says how a run has ended; exit status 1 if a claim that matters fails, 130 if it was interrupted."""
    summary = outcome.summary
    if summary and as_json:
        print((outcome.run.path / "summary.json").read_text())
    elif summary:
        show(summary, outcome.run)
    if outcome.interrupted:
        what = "summed up" if summary else "too little to sum up"
        fail(f"interrupted; what was measured ({what}) is in {outcome.run.path}", INTERRUPTED)
    assert summary  # a run that has come to its end has one
    if not as_json:
        other = "paper" if summary.profile == "quick" else "quick"
        print(f"the other profile: dysco-lab run {summary.experiment} --profile {other}")
    failed = any(c.verdict == "fails" or (strict and c.verdict == "differs") for c in summary.claims)
    raise SystemExit(1 if failed else 0)


def show(summary: Summary, directory: RunDirectory) -> None:
    table = Table("claim", "paper", "here", "verdict", title=f"{summary.experiment}, {summary.profile}: {summary.verdict}")
    colours = {"holds": "green", "fails": "red", "differs": "yellow"}
    for c in summary.claims:
        colour = colours.get(c.verdict, "white")
        table.add_row(c.statement, c.paper, f"{shown(c.value)} {c.unit}", f"[{colour}]{c.verdict}[/{colour}]")
    console.print(table)
    for note in summary.notes:
        print(f"note: {note}")
    if summary.suspicion:
        print(f"suspect: {summary.suspicion}")
    print(f"files: {directory.path}")
    for figure in sorted(directory.figures.glob("*.png")):
        print(f"figure: {figure}")


@app.command()
def plot(run_dir: Path) -> None:
    """Sums up and draws a recorded run again; measures nothing."""
    from lab.experiments.framework.runner import finish

    run = RunDirectory.open(run_dir)
    show(finish(run), run)


@app.command()
def freeze(run_dir: Path) -> None:
    """Makes a recorded run the reference run of its experiment (results/reference), without its large raw logs."""
    from lab.freeze import freeze as freeze_run

    run, left_out = freeze_run(RunDirectory.open(run_dir))
    print(f"reference: {run.path}" + (f"; too large for it: {', '.join(left_out)}" if left_out else ""))


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False) -> None:
    """What this machine can and cannot run, and what to do about each."""
    from lab import doctor as checks

    raise SystemExit(checks.main(as_json))


def main() -> None:
    from dysco_ns.agent.client import AgentRefused, NoAgent
    from dysco_ns.agent.launch import StartFailed
    from lab.environment import MissingTool
    from lab.network import LabFailed
    from lab.tool import ToolFailed

    try:
        app()
    except (BadInventory, BadSetting, BadRun) as error:
        fail(str(error), 2)
    except (state.LabBusy, LabFailed, MissingTool, PlayFailed, StartFailed, ToolFailed, AgentRefused, NoAgent, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)


if __name__ == "__main__":
    main()
