# SPDX-License-Identifier: Apache-2.0
"""Captures judge: whoever stands beside a host, or behind its agent, must have seen ordinary TCP connections."""

from contextlib import ExitStack, contextmanager

from lab.capture import capturing, capturing_stack
from lab.judge import judged


def _wrong(path, where, beside):
    faults = path.faults(beside)
    if "wire" in where:  # an anchor that has been told beta passes on the stack's echoes: some are of the old path still
        faults.pop("echo_above_max", None)
    if where.startswith("mb"):  # an anchor that forwards may be sent again what the other end has acknowledged already
        faults.pop("early_bytes_max", None)
    return faults


@contextmanager
def watched(lab, tmp_path, wires=(), stacks=(), allowed=()):
    """Captures while the block lasts: beside hosts, and what the TCP of end hosts itself sends and gets.  Whoever looks
    must then have seen ordinary connections only, of which some were new paths (if anything was watched on a wire).  `allowed`:
    faults (lab/judge.py) that plain TCP has in such a network too."""
    files = {f"{host} wire": tmp_path / f"{host}-wire.pcap" for host in wires}
    files |= {f"{host} stack": tmp_path / f"{host}-stack.pcap" for host in stacks}
    with ExitStack() as stack:
        for host in wires:
            stack.enter_context(capturing(lab, host, "eth0", files[f"{host} wire"]))
        for host in stacks:
            stack.enter_context(capturing_stack(lab, host, files[f"{host} stack"]))
        yield
    for where, file in files.items():
        found = judged(file)
        used = [path for path in found.paths if any(d.bytes for d in path.directions)]
        assert used, f"nothing was captured: {where}"
        assert "stack" in where or found.new_paths(), f"no new path was captured: {where}"
        host = where.split()[0]  # what a middlebox passes on may have been lost or overtaken before it came there
        beside = [] if host.startswith("mb") else [i["address"] for i in lab.agent(host).request("ping")["interfaces"]]
        wrong = {f"{path.left} > {path.right}": _wrong(path, where, beside) for path in used}
        faults = {path: found for path, found in wrong.items() if set(found) - set(allowed)}
        assert not faults, f"{where}: {faults}"
