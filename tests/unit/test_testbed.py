# SPDX-License-Identifier: Apache-2.0
"""Inventories: what is wrong with one is said in one line; and what is noted on a machine is undone."""

import subprocess
import sys
import time

import pytest
import yaml

from lab.results import ROOT
from lab.testbed import plays
from lab.testbed.errors import BadInventory
from lab.testbed.inventory import read
from lab.testbed.network import placed
from lab.testbed.ssh import SCRIPT
from lab.topologies import build

HOSTS = {
    "left": {"role": "client", "ssh": "192.0.2.1", "address": "10.0.0.1/24", "interface": "ens1"},
    "box": {"role": "middlebox", "ssh": "root@box:2222", "address": "10.0.0.2/24", "pci": "0000:03:00.0", "backend": "dpdk",
            "cores": [2, 3], "hugepages_mb": 1024, "poll": True},
    "right": {"role": "server", "ssh": "right", "address": "10.0.0.3/24", "interface": "ens1"},
}  # fmt: skip


def written(tmp_path, **changes):
    """An inventory with some fields of hosts changed: left={"role": ...}; None: the host is away."""
    hosts = {name: fields | (changes.get(name) or {}) for name, fields in HOSTS.items() if changes.get(name, {}) is not None}
    whole = {"hosts": hosts} | {key: value for key, value in changes.items() if key not in HOSTS}
    path = tmp_path / "testbed.yml"
    path.write_text(yaml.safe_dump(whole))
    return path


def test_a_good_inventory_becomes_a_chain_and_ansibles_hosts(tmp_path):
    inventory = read(written(tmp_path))
    assert inventory.chain == {"client": "left", "mb1": "box", "server": "right"}
    topology = placed(build("chain", {"middleboxes": "1"}), inventory)
    assert topology.names == {"client": "10.0.0.1", "mb1": "10.0.0.2", "server": "10.0.0.3"}
    assert topology.policies[0].filter.endswith("dst host 10.0.0.3") and topology.host("mb1").backend == "dpdk"
    known = plays.inventory_for_ansible(inventory)["all"]["hosts"]["box"]
    assert known["machine"]["pci"] == "0000:03:00.0" and known["notes"] == "/run/dysco/testbed/box"


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"left": {"role": "clients"}}, "hosts.left.role: Input should be 'client', 'middlebox' or 'server'"),
        ({"left": {"address": "10.0.0.300/24"}}, "hosts.left.address: value is not a valid IPv4 or IPv6 interface"),
        ({"left": {"address": "10.0.0.3/24"}}, "two hosts have the same address"),
        ({"left": {"address": "10.0.1.1/24"}}, "addresses of several networks (10.0.0.0/24, 10.0.1.0/24): hosts must reach one "
         "another directly"),
        ({"left": {"interface": None}}, "hosts.left: interface is missing"),
        ({"left": {"pci": "0000:03:00.0"}}, "hosts.left: pci is for backend: dpdk; with ebpf give the kernel's interface"),
        ({"box": {"pci": "03:00.0"}}, "hosts.box.pci: String should match pattern "
         "'^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7]$'"),
        ({"box": {"driver": "mlx5"}}, "hosts.box: interface is missing: the kernel's name of a NIC that it shares"),
        ({"box": {"cores": [2, 2]}}, "hosts.box: cores: one is named twice"),
        ({"box": {"core": 2}}, "hosts.box.core: Extra inputs are not permitted"),
        ({"right": None}, "0 hosts with role server: a testbed has one"),
        ({"tree": "dysco"}, "tree: dysco is not an absolute path of a folder of its own"),
    ],
)  # fmt: skip
def test_a_bad_inventory_is_refused_in_one_line(tmp_path, changes, complaint):
    path = written(tmp_path, **changes)
    with pytest.raises(BadInventory) as refused:
        read(path)
    assert str(refused.value) == f"{path}: {complaint}"


@pytest.mark.parametrize("text", ["hosts: [", "just words", "\x00"])
def test_what_is_no_inventory_ends_the_command_with_one_line_and_status_2(tmp_path, text):
    path = tmp_path / "testbed.yml"
    path.write_text(text)
    command = [sys.executable, "-m", "lab.cli", "testbed", "clean", "--inventory", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and done.stderr.startswith(f"dysco-lab: {path}: not "), done.stderr
    assert done.stderr.count("\n") == 1


def test_what_ansible_complains_about_is_one_line():
    said = 'TASK [x] ***\nfatal: [box]: FAILED! => {"msg": "non-zero return code", "stderr": "first\\nno such interface"}\n'
    assert plays.complaint(said) == "box: no such interface"
    assert plays.complaint('fatal: [box]: UNREACHABLE! => {"msg": "no route", "unreachable": true}') == "box: no route"
    assert plays.complaint("ERROR! the playbook is away\n") == "ERROR! the playbook is away"


def far(folder, *words, **options):
    return subprocess.run(["sh", str(SCRIPT), str(folder), *words], capture_output=True, text=True, check=True, **options).stdout


def test_changes_are_undone_latest_first_and_processes_end(tmp_path):
    notes, log = tmp_path / "box" / "run", tmp_path / "log"
    process = subprocess.Popen(["sh", str(SCRIPT), str(notes), "run", "sleep-1", "sleep", "600"])
    try:
        far(notes, "do", f"echo first >>{log}", "true")
        far(notes, "do", f"echo second >>{log}", "true")
        far(notes, "do", "false", "true")
        while not (notes / "process-sleep-1").exists():
            time.sleep(0.01)
        assert far(notes, "clean").startswith("not undone: false")
        assert process.wait(5) == -15
        assert log.read_text() == "second\nfirst\n" and not notes.exists()
        assert far(notes, "clean") == ""
    finally:
        process.kill()
        process.wait()
