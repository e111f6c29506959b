# SPDX-License-Identifier: Apache-2.0
"""Which agents can be asked from here, by host name and by address: those of the running lab."""

from __future__ import annotations

import json
from typing import Any

from dysco_ns import netns
from dysco_ns.agent.client import AgentClient, AgentRefused, NoAgent

LAB_FILE = netns.RUN / "lab.json"
Description = dict[str, Any]


class UnknownHost(Exception):
    """A name that no host of the lab has; says which ones there are."""


class Directory:
    """The lab's hosts; empty when no lab runs."""

    def __init__(self) -> None:
        try:
            lab: dict[str, Any] = json.loads(LAB_FILE.read_text())
            self._namespaces: dict[str, int] = lab["namespaces"]
            self._addresses: dict[str, str] = lab["addresses"]
            self._agents = list(lab["agents"])
        except (OSError, ValueError, KeyError):
            self._namespaces, self._addresses, self._agents = {}, {}, []
        self._sessions: dict[str, dict[str, Description]] = {}
        self._others: dict[str, list[str]] = {}

    def client(self, host: str | None) -> AgentClient:
        """The agent of a host, or of this network namespace.  UnknownHost if there is no such host."""
        if host is None:
            return AgentClient(netns.socket_path(netns.inode(netns.path_of())))
        if not self._namespaces:
            raise UnknownHost("no lab is running: --at names one of its hosts")
        if host not in self._namespaces:
            raise UnknownHost(f"unknown host '{host}': one of {', '.join(self._namespaces)}")
        return AgentClient(netns.socket_path(self._namespaces[host]))

    def agents(self) -> list[str]:
        """The hosts of the lab that have an agent.  UnknownHost if no lab runs."""
        if not self._agents:
            raise UnknownHost("no lab with agents is running: nobody can be asked")
        return self._agents

    def here(self) -> str | None:
        """The name of the host in whose namespace we are."""
        own = netns.inode(netns.path_of())
        return next((name for name, inode in self._namespaces.items() if inode == own), None)

    def address(self, host: str) -> str:
        """The address of a host given by name; anything else is taken for an address."""
        return self._addresses.get(host, host)

    def host_of(self, address: str) -> str | None:
        """The host with this address; if it is nobody's first one, the agents are asked for theirs."""
        found = next((name for name, own in self._addresses.items() if own == address), None)
        return found or next((name for name in self._namespaces if address in self._other_addresses(name)), None)

    def _other_addresses(self, host: str) -> list[str]:
        if host not in self._others:
            try:
                pinged = self.client(host).request("ping")
            except (NoAgent, AgentRefused):
                pinged = {"interfaces": []}
            self._others[host] = [i["address"] for i in pinged["interfaces"]]
        return self._others[host]

    def look_again(self) -> None:
        """Sessions may have changed meanwhile."""
        self._sessions.clear()

    def socket(self, host: str) -> str:
        """Where the agent of a host listens."""
        return str(self.client(host).path)

    def sessions(self, host: str) -> dict[str, Description]:
        """The sessions of a host's agent by their ID, asked once until `look_again`."""
        if host not in self._sessions:
            described = self.client(host).request("sessions")["sessions"]
            self._sessions[host] = {s["id"]: s for s in described}
        return self._sessions[host]
