# SPDX-License-Identifier: Apache-2.0
"""What all experiments share: turns, interrupts, runs of another version, the mark on what is suspect."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import claims, environment, experiments
from lab.experiments.framework import runner
from lab.experiments.framework.figures import Drawing
from lab.experiments.framework.recorder import Recorder
from lab.freeze import LARGEST_RAW_BYTES, freeze
from lab.results import BadRun, RunDirectory, Summary, claim
from lab.topologies import BadSetting


def drawn(run, summary):
    drawing = Drawing(run, summary)
    with drawing.figure("values", "1 run") as (_, axis):
        axis.plot(run.samples().value)
    return drawing.paths


@pytest.fixture
def experiment(monkeypatch):
    """A small experiment named `sample`; the test says what it measures."""

    def install(measure, tools=(), cpu_bound=False):
        module = SimpleNamespace(
            DESCRIPTION="for this test", TOOLS=tools, CPU_BOUND=cpu_bound,
            plan=lambda settings, profile: settings.integer("count", 3, 1, 9),
            measure=measure,
            summarise=lambda run: Summary.of(run, [claim("c", "rows", "-", float(len(run.samples())), "", ">= 1")], {}),
            draw=drawn,
        )  # fmt: skip
        monkeypatch.setitem(sys.modules, "lab.experiments.sample", module)
        monkeypatch.setattr(experiments, "NAMES", (*experiments.NAMES, "sample"))

    monkeypatch.setattr(runner, "_busy", lambda: 0.0)
    return install


def asked(out, profile="quick", **settings):
    return runner.Asked("sample", profile, settings, 1, out)


@pytest.mark.parametrize("name", experiments.NAMES)
def test_every_experiment_declares_all_parts_and_plans_both_profiles(name):
    found = experiments.find(name)
    assert len(found.DESCRIPTION) < 120 and isinstance(found.TOOLS, tuple) and isinstance(found.CPU_BOUND, bool)
    assert all(callable(getattr(found, part)) for part in ("plan", "measure", "summarise", "draw"))
    for profile in experiments.PROFILES:
        experiments.plan_of(name, {}, profile)


def test_every_module_that_describes_itself_is_listed():
    folder = Path(experiments.__file__).parent
    modules = {p.stem.replace("_", "-") for p in folder.glob("*.py") if "\nDESCRIPTION = " in p.read_text()}
    assert modules == set(experiments.NAMES)


def test_a_run_writes_all_files_and_becomes_the_latest(experiment, tmp_path):
    experiment(lambda plan, record: record.all("a", "x_us", range(plan)))
    outcome = runner.execute(asked(tmp_path, count="5"))
    assert len(outcome.run.samples()) == 5 and outcome.summary.verdict == "holds"
    assert (tmp_path / "latest").resolve() == outcome.run.path
    manifest = outcome.run.manifest()
    assert manifest["ended"] == "complete" and manifest["settings"] == {"count": "5"} and manifest["versions"]
    assert sorted(p.name for p in outcome.run.figures.iterdir()) == ["values.png", "values.svg"]
    again = (outcome.run.figures / "values.svg").read_bytes()
    runner.finish(RunDirectory.open(outcome.run.path))
    assert (outcome.run.figures / "values.svg").read_bytes() == again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_measured(experiment, tmp_path, number):
    def measure(plan, record):
        record("a", "x_us", 7.0)
        os.kill(os.getpid(), number)
        record("a", "x_us", 8.0)

    experiment(measure)
    outcome = runner.execute(asked(tmp_path))
    assert outcome.interrupted and outcome.run.samples().value.tolist() == [7.0]
    assert outcome.run.manifest()["ended"] == "interrupted"
    assert outcome.summary.verdict == "incomplete" and "INCOMPLETE" in (outcome.run.figures / "values.svg").read_text()
    assert not (tmp_path / "latest").exists()


def test_a_failure_leaves_its_record_and_is_no_result(experiment, tmp_path):
    def measure(plan, record):
        record("a", "x_us", 7.0)
        raise RuntimeError("broken")

    experiment(measure)
    with pytest.raises(RuntimeError, match="broken"):
        runner.execute(asked(tmp_path))
    run = RunDirectory.open(next(tmp_path.iterdir()))
    assert run.manifest()["ended"] == "failed" and len(run.samples()) == 1 and not (tmp_path / "latest").exists()


def test_turns_visit_every_mode_each_round_and_drop_the_warm_up(tmp_path):
    def orders(seed):
        record = Recorder(RunDirectory.create("x", tmp_path), seed)
        found = []
        for turn in record.turns(8, ("a", "b", "c")):
            record(turn.mode, "round", turn.round)
            found.append(turn.mode)
        record.close()
        return found

    found = orders(1)
    assert all(sorted(found[i : i + 3]) == ["a", "b", "c"] for i in range(0, 27, 3)) and found != sorted(found)
    assert found == orders(1) != orders(2)
    rows = RunDirectory(max(tmp_path.glob("2*"))).samples()
    assert len(rows) == 24 and rows.value.min() == 0


@pytest.mark.parametrize(("cpu_bound", "suspect"), [(False, True), (True, False)])
def test_an_exhausted_cpu_is_marked_in_the_figure(experiment, tmp_path, cpu_bound, suspect):
    def measure(plan, record):
        zero = record.zero()
        for second, idle in enumerate((50.0, 0.4), 1):
            record("machine", "idle_pct", idle, zero + second)

    experiment(measure, (), cpu_bound)
    outcome = runner.execute(asked(tmp_path))
    assert (outcome.summary.fidelity == "suspect") is suspect
    assert ("SUSPECT" in (outcome.run.figures / "values.svg").read_text()) is suspect
    assert ("exhausted" in (outcome.run.path / "REPORT.md").read_text()) is suspect


def test_nonsense_is_refused_before_anything_is_made(experiment, tmp_path):
    experiment(lambda plan, record: None, ("no-such-tool",))
    for wrong in (asked(tmp_path, colour="red"), asked(tmp_path, count="0"), asked(tmp_path, "slow")):
        with pytest.raises(BadSetting):
            runner.execute(wrong)
    with pytest.raises(environment.MissingTool, match="needs no-such-tool, which is not installed: `make setup`"):
        runner.execute(asked(tmp_path))
    assert not list(tmp_path.iterdir())


def test_results_that_cannot_be_written_are_one_line(experiment, tmp_path):
    experiment(lambda plan, record: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^cannot write results to .*file"):
        runner.execute(asked(tmp_path / "file"))


@pytest.mark.parametrize(
    ("manifest", "why"),
    [(None, "not the directory of a run"), ("[]", "not that of a run"), ('{"schema": 99}', "schema 99, this version reads")],
)
def test_a_directory_of_another_version_is_one_line_and_status_two(tmp_path, manifest, why):
    if manifest:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(BadRun, match=why):
        RunDirectory.open(tmp_path)
    command = [sys.executable, "-m", "lab.cli", "plot", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and why in done.stderr and done.stderr.count("\n") == 1


def test_an_interval_stands_beside_its_value(experiment, tmp_path):
    experiment(lambda plan, record: record("a", "x_us", 1.0))
    run = runner.execute(asked(tmp_path)).run
    run.write_summary(Summary.of(run, [claim("c", "ratio", "1", 0.98, "", ">= 0.9", ci95=(0.97, 0.99))], {"m": float("nan")}))
    assert "0.98 [0.97, 0.99]" in (run.path / "REPORT.md").read_text()
    assert json.loads((run.path / "summary.json").read_text())["metrics"] == {}


def test_a_reference_run_leaves_large_raw_logs_out(experiment, tmp_path):
    def measure(plan, record):
        record("a", "x_us", 1.0)
        (record.raw / "small").write_bytes(b"x" * LARGEST_RAW_BYTES)
        (record.raw / "large").write_bytes(b"x" * (LARGEST_RAW_BYTES + 1))

    experiment(measure)
    run = runner.execute(asked(tmp_path / "runs")).run
    frozen, left_out = freeze(run, tmp_path / "reference")
    assert left_out == ["raw/large"] and [p.name for p in frozen.raw.iterdir()] == ["small"]
    assert frozen.path == tmp_path / "reference" / "sample" and frozen.summary()["verdict"] == "holds"
    assert freeze(run, tmp_path / "reference")[0].path == frozen.path


def test_an_incomplete_run_is_no_reference(experiment, tmp_path):
    experiment(lambda plan, record: (record("a", "x_us", 1.0), os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(BadRun, match=r"not complete \(interrupted\)"):
        freeze(runner.execute(asked(tmp_path / "runs")).run, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


def test_every_claim_of_the_paper_has_an_answer_or_a_reason():
    for row in claims.ROWS:
        here, verdict = claims._answer(row)
        assert bool(row.why) != bool(row.experiment) and here and verdict
        assert "not in its reference run" not in verdict, f"{row.experiment} has no claim or metric {row.key}"
