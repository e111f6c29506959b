# SPDX-License-Identifier: Apache-2.0
"""Which data path an agent drives: eBPF programs in the kernel, or a DPDK process in front of it."""

from __future__ import annotations

from collections.abc import Sequence

from dysco_ns import netns
from dysco_ns.agent.core import Backend
from dysco_ns.dpdk import process, takeover
from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT, Programs, remove

BACKENDS = ("ebpf", "dpdk")


def open_backend(
    kind: str, namespace: int, btf: Btf | None, poll: bool = False, workers: int = 1, interfaces: Sequence[str] = ()
) -> Backend:
    """The data path of the current namespace: made, or found as an earlier daemon left it.  `interfaces`: those that DPDK
    may take; none: all."""
    if kind == "dpdk":
        return process.open_data_path(namespace, btf or Btf(OBJECT), poll, workers, interfaces)
    if process.runs(namespace):
        raise process.StartFailed("this namespace has a DPDK data path already: use --backend dpdk")
    return Programs(netns.ensure_bpffs() / str(namespace), btf=btf)


def names_behind(kind: str, interfaces: Sequence[str]) -> tuple[str, ...]:
    """The interfaces that the local stack has when the data path has those."""
    return (*interfaces, *takeover.taps(takeover.MOST)) if kind == "dpdk" and interfaces else tuple(interfaces)


def forget(namespace: int) -> None:
    """Takes away whichever data path a namespace has.  May run twice."""
    process.remove(namespace)
    remove(netns.BPFFS / str(namespace))
