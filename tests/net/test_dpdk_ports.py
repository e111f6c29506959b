# SPDX-License-Identifier: Apache-2.0
"""What dysco-dpdk is told that cannot be: one clear line each; and its end, which leaves interfaces as they were."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from dysco_ns import netns
from dysco_ns.dpdk.process import PROGRAM
from lab.network import wait_until

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the DPDK backend is not built: run `make dpdk`")

NULL = ["--wire", "net_null0", "--host", "net_null1", "--no-huge"]
AF_PACKET = ["--wire", "net_af_packet0,iface=wire0", "--host", "net_tap0,iface=stack0", "--no-huge"]
NOBODY = 65534


def said(*argv, **how):
    """Exit status and what was said: one line, or this fails."""
    done = subprocess.run([str(PROGRAM), *argv], capture_output=True, text=True, check=False, timeout=60, **how)
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize(
    ("argv", "status", "line"),
    [
        (["--wire", "net_null0"], 2, "1 --wire and 0 --host: each port on the wire needs one towards the host"),
        ([*NULL, "--core", "1023"], 2, "--core 1023: a number from 0 to 127"),
        ([*NULL, "--core", "0,0"], 2, "--core 0,0: 0 is there twice"),
        ([*NULL, "--core", "0,1", "--workers", "3"], 2, "--workers 3, but --core names 2 processors"),
        ([*NULL, "--workers", "17"], 2, "--workers 17: a number from 1 to 16"),
        ([*NULL, "--huge"], 2, "--huge and --no-huge: not both"),
        (["--wire", "0000:ff:1f.7", "--host", "net_null1"], 1, "0000:ff:1f.7: no port there that DPDK has (bind it to vfio-pci, "
         "mlx5 to its own driver)"),
        (["--wire", "net_nonsense0", "--host", "net_null1"], 1, None),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(argv, status, line):
    code, text = said(*argv)
    assert code == status
    assert text.startswith("dysco-dpdk: ")
    assert line is None or text == f"dysco-dpdk: {line}"


def test_a_processor_that_is_not_here():
    code, text = said(*NULL, "--core", "127")
    assert (code, text.split(" (")[0]) == (1, "dysco-dpdk: core 127: there is no such processor, or it is not ours to use")


def test_without_huge_pages():
    free = sum(int(f.read_text()) for f in Path("/sys/kernel/mm/hugepages").glob("*/free_hugepages"))
    if free:
        pytest.skip(f"{free} huge pages are free here")
    code, text = said("--wire", "net_null0", "--host", "net_null1", "--huge")
    assert code == 1
    assert text == "dysco-dpdk: no huge pages are free: echo 512 > /proc/sys/vm/nr_hugepages, or leave --huge away"


def test_without_permission():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        program = shutil.copy(PROGRAM, folder)
        argv = [program, "--wire", "net_af_packet0,iface=lo", "--host", "net_tap0,iface=stack0", "--no-huge"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, user=NOBODY, group=NOBODY, timeout=60,
                              env={"XDG_RUNTIME_DIR": folder})  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "root" in done.stderr, done.stderr


def inside(command):
    """argv of a shell in a namespace of its own that has one interface, wire0."""
    made = "ip link set lo up; ip link add wire0 type veth peer name far0; ip link set far0 up; "
    return ["unshare", "-n", "sh", "-c", made + command]


def test_a_port_that_is_down():
    done = subprocess.run(inside(" ".join([str(PROGRAM), *AF_PACKET])), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ("dysco-dpdk: net_af_packet0,iface=wire0: interface wire0 is down (ip link set wire0 up)\n")


@contextmanager
def running(*argv):
    """dysco-dpdk between wire0 and a tap, in a namespace of its own; yields its process and how to run commands there."""
    command = inside("ip link set wire0 up; exec " + " ".join([str(PROGRAM), *AF_PACKET, *argv]))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    keeper = None
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        keeper = subprocess.Popen(["nsenter", "-n", "-t", str(process.pid), "sleep", "60"])  # the namespace outlives it
        yield process, lambda *words: subprocess.check_output(["nsenter", "-n", "-t", str(keeper.pid), *words], text=True)
    finally:
        process.kill()
        process.communicate()
        if keeper:
            keeper.kill()
            keeper.wait()


def links(run):
    return {link["ifname"]: set(link["flags"]) for link in json.loads(run("ip", "-json", "link"))}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_end_leaves_interfaces_as_they_were(number, workers):
    with running("--workers", workers, "--json", "--prefix", f"dysco-end-{workers}") as (process, run):
        wait_until(lambda: "stack0" in links(run), 5, "the tap")
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        statistics = json.loads(out)
        assert len(statistics["cores"]) == int(workers)
        assert [pair["wire"] for pair in statistics["pairs"]] == ["net_af_packet0,iface=wire0"]
        left = links(run)
        assert set(left) == {"lo", "wire0", "far0"}
        assert "PROMISC" not in left["wire0"]
        assert "UP" in left["wire0"]
    assert not Path(f"/var/run/dpdk/dysco-end-{workers}").exists()


def test_a_data_path_that_is_ended_under_its_daemon_gives_the_interface_back(lab_of):
    lab = lab_of("chain", middleboxes=0, backend="dpdk")
    state = netns.RUN / f"{lab.state.namespaces['client']}.dpdk.json"
    os.kill(json.loads(state.read_text())["pid"], signal.SIGTERM)

    def given_back():
        addresses = json.loads(lab.run("client", ["ip", "-json", "-4", "address"]))
        return [link["ifname"] for link in addresses if link["addr_info"]] == ["lo", "eth0"]

    wait_until(given_back, 10, "the interface has its address again")
    lab.run("client", ["ping", "-c", "1", "-W", "2", lab.topology.host("server").address])
