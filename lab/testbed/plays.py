# SPDX-License-Identifier: Apache-2.0
"""Runs Ansible: the plays of lab/testbed/plays on the machines of an inventory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.environment import MissingTool
from lab.results import ROOT
from lab.testbed.errors import PlayFailed
from lab.testbed.inventory import Inventory
from lab.testbed.ssh import NOTES, options

PLAYS = Path(__file__).with_name("plays")
PROGRAM = Path(sys.executable).with_name("ansible-playbook")
FATAL = re.compile(r"^fatal: \[(?P<host>[^\]]+)\][^{]*(?P<said>\{.*\})?", re.MULTILINE)
SETTINGS = {
    "ANSIBLE_HOST_KEY_CHECKING": "true",
    "ANSIBLE_PIPELINING": "true",
    "ANSIBLE_NOCOWS": "true",
    "ANSIBLE_NOCOLOR": "true",
    "ANSIBLE_RETRY_FILES_ENABLED": "false",
    "ANSIBLE_DEPRECATION_WARNINGS": "false",
    "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
    "ANSIBLE_DISPLAY_OK_HOSTS": "true",
    "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
}


def inventory_for_ansible(inventory: Inventory) -> dict[str, Any]:
    """The same machines in Ansible's words."""
    common = " ".join(options(inventory.ssh_config))
    hosts = {}
    for name, machine in inventory.hosts.items():
        described = machine.model_dump(mode="json")
        hosts[name] = {
            "ansible_host": machine.ssh,
            "ansible_ssh_common_args": common,
            "ansible_python_interpreter": "/usr/bin/python3",
            "tree": inventory.tree,
            "notes": f"{NOTES}/{name}",
            "machine": described,
        }
    return {"all": {"hosts": hosts}}


def play(name: str, inventory: Inventory, skip: Sequence[str] = (), **values: str) -> None:
    """Runs a play, whose tasks are told while they run.  PlayFailed with the first complaint."""
    if not PROGRAM.exists():
        raise MissingTool("testbeds need Ansible: `.venv/bin/pip install --editable '.[testbed]'` installs it")
    with tempfile.TemporaryDirectory(prefix="dysco-play-") as folder:
        path = Path(folder) / "inventory.json"
        path.write_text(json.dumps(inventory_for_ansible(inventory)))
        argv = [str(PROGRAM), "--inventory", str(path), str(PLAYS / f"{name}.yml"), "--extra-vars", json.dumps(values)]
        if skip:
            argv += ["--skip-tags", ",".join(skip)]
        environment = os.environ | SETTINGS | {"ANSIBLE_LOCAL_TEMP": folder, "ANSIBLE_HOME": folder}
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   cwd=ROOT, env=environment)  # fmt: skip
        said = _told(process)
    if process.returncode:
        raise PlayFailed(f"{name}: {complaint(said)}")


def _told(process: subprocess.Popen[str]) -> str:
    """All that it says; the names of its tasks, and what it notes, are passed on."""
    lines = []
    assert process.stdout
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("TASK ["):
                print(line[len("TASK [") :].partition("]")[0], flush=True)
            elif note := re.search(r'"msg": "(note: .*)"', line):
                print(f"  {note[1]}", flush=True)
    finally:
        process.stdout.close()
        process.wait()
    return "".join(lines)


def complaint(said: str) -> str:
    """One line: the first machine that failed, and its own words."""
    found = FATAL.search(said)
    if not found:
        lines = [line for line in said.splitlines() if line.strip()]
        return lines[-1] if lines else "Ansible ended without a word"
    try:
        result = json.loads(found["said"] or "{}")
    except ValueError:
        result = {}
    texts = [str(result.get(key, "")).strip() for key in ("stderr", "msg", "stdout")]
    text = next((t for t in texts if t), "it does not say why")
    return f"{found['host']}: {text.splitlines()[-1]}"
