# SPDX-License-Identifier: Apache-2.0
"""The machines of a testbed, as their owner writes them down.  docs/testbed.md has an example of each kind."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, IPvAnyInterface, ValidationError, model_validator

from lab.testbed.errors import BadInventory

MOST_MIDDLEBOXES = 8
MOST_CORES = 128
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
Interface = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,15}$")]
PciAddress = Annotated[str, Field(pattern=r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")]
Core = Annotated[int, Field(ge=0, lt=MOST_CORES)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(Strict):
    """One machine, and what of it the testbed may use."""

    role: Literal["client", "middlebox", "server"]
    ssh: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@:-]+$")]  # an address, a name, an alias of ssh's
    address: IPvAnyInterface  # on the network of the experiments, with its prefix: 10.0.0.1/24
    interface: Interface | None = None  # of that network, as the kernel calls it; not the one that ssh comes by
    pci: PciAddress | None = None  # of the NIC that DPDK takes
    driver: Literal["vfio-pci", "mlx5"] = "vfio-pci"  # mlx5: the NIC stays with the kernel, which shares it
    backend: Literal["ebpf", "dpdk"] = "ebpf"
    cores: tuple[Core, ...] = ()  # for tools and for DPDK; none: all
    hugepages_mb: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    poll: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Machine:
        if self.address.version != 4:
            raise ValueError("address: Dysco has IPv4 only")
        if self.pci and self.backend != "dpdk":
            raise ValueError("pci is for backend: dpdk; with ebpf give the kernel's interface")
        if not self.pci and not self.interface:
            raise ValueError("interface is missing" + (", or pci" if self.backend == "dpdk" else ""))
        if self.pci and self.driver == "mlx5" and not self.interface:
            raise ValueError("interface is missing: the kernel's name of a NIC that it shares")
        if len(set(self.cores)) != len(self.cores):
            raise ValueError("cores: one is named twice")
        return self

    @property
    def own(self) -> str:
        """Its address, without the prefix."""
        return str(self.address.ip)

    @property
    def workers(self) -> int:
        """Cores of DPDK."""
        return max(1, len(self.cores) if self.pci else 1)


class Inventory(Strict):
    """A testbed: one client, one server, 0 to 8 middleboxes in their order, all on one network."""

    tree: str = "/opt/dysco-lab"  # where this tree lies on each machine
    ssh_config: Path | None = None  # for ssh -F; relative to the inventory
    hosts: dict[str, Machine]

    @model_validator(mode="after")
    def _whole(self) -> Inventory:
        for name in self.hosts:
            if not NAME.fullmatch(name):
                raise ValueError(f"'{name}' is no name of a host: small letters, digits, hyphens")
        if not PurePosixPath(self.tree).is_absolute() or PurePosixPath(self.tree) == PurePosixPath("/"):
            raise ValueError(f"tree: {self.tree} is not an absolute path of a folder of its own")
        for role in ("client", "server"):
            count = len(self._with(role))
            if count != 1:
                raise ValueError(f"{count} hosts with role {role}: a testbed has one")
        if len(self._with("middlebox")) > MOST_MIDDLEBOXES:
            raise ValueError(f"more than {MOST_MIDDLEBOXES} middleboxes")
        self._check_network()
        return self

    def _check_network(self) -> None:
        machines = self.hosts.values()
        if len({m.address.ip for m in machines}) != len(machines):
            raise ValueError("two hosts have the same address")
        networks = sorted({str(m.address.network) for m in machines})
        if len(networks) != 1:
            raise ValueError(f"addresses of several networks ({', '.join(networks)}): hosts must reach one another directly")

    def _with(self, role: str) -> list[str]:
        return [name for name, machine in self.hosts.items() if machine.role == role]

    @property
    def chain(self) -> dict[str, str]:
        """By the names of the chain topology (client, mb1.., server) the hosts' own ones."""
        boxes = {f"mb{i}": name for i, name in enumerate(self._with("middlebox"), 1)}
        return {"client": self._with("client")[0], **boxes, "server": self._with("server")[0]}


def read(path: Path) -> Inventory:
    """BadInventory, one line, if it cannot be read or does not describe a testbed."""
    try:
        found: Any = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInventory(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInventory(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise BadInventory(f"{path}: not an inventory: it has no hosts")
    try:
        inventory = Inventory.model_validate(found)
    except ValidationError as error:
        raise BadInventory(f"{path}: {_first(error)}") from None
    if inventory.ssh_config:
        config = path.parent / inventory.ssh_config
        if not config.exists():
            raise BadInventory(f"{path}: ssh_config: there is no {config}")
        inventory = inventory.model_copy(update={"ssh_config": config.resolve()})
    return inventory


def _first(error: ValidationError) -> str:
    """The first complaint: where, and what."""
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    what = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
