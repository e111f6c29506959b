# SPDX-License-Identifier: Apache-2.0
"""Domains: agents that share keys.  A host where two meet signs each message with the key of its receiver's domain."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysco_ns.agent.core import Core
from dysco_ns.agent.keys import BadKey, hmac_states, read_key

MAX_DOMAINS, MAX_KEYS = 4, 4
EVERYBODY = "everybody else"


class BadDomain(Exception):
    """A domain or key number that an agent does not have; says which."""


@dataclass
class Domain:
    """`network` in CIDR notation, or EVERYBODY; `signing`: number of the key to sign with, None: unsigned."""

    network: str
    signing: int | None = None

    def fields(self) -> dict[str, Any]:
        """Of struct domain."""
        net = ipaddress.IPv4Network("0.0.0.0/0" if self.network == EVERYBODY else self.network)
        sign = self.signing is not None
        return {"network": str(net.network_address), "mask": str(net.netmask), "sign": int(sign), "key": self.signing or 0}


def parse_domains(given: Sequence[str]) -> dict[str, bytes | None]:
    """NETWORK=KEYFILE (or NETWORK= for one that does not sign) -> network and key.  BadDomain, BadKey."""
    found: dict[str, bytes | None] = {}
    for text in given:
        network, equals, file = text.partition("=")
        try:
            net = str(ipaddress.IPv4Network(network))
        except ValueError as error:
            raise BadDomain(f"domain {text}: {error}; write NETWORK=KEYFILE, such as 10.1.0.0/16=/etc/dysco/key") from None
        if not equals:
            raise BadDomain(f"domain {text}: write NETWORK=KEYFILE, or NETWORK= for one that does not sign")
        found[net] = read_key(Path(file)) if file else None
    if len(found) >= MAX_DOMAINS:
        raise BadDomain(f"{len(found)} domains: {MAX_DOMAINS - 1} are the limit beside that of all others")
    return found


class Domains:
    """Those of one agent, and their keys in the core's table: the first is that of everybody else."""

    def __init__(self, core: Core, key: bytes | None, others: Mapping[str, bytes | None]) -> None:
        self._core = core
        self._keys = [key, *others.values()]
        self.domains = [Domain(EVERYBODY), *(Domain(network) for network in others)]

    def prepare(self) -> None:
        """Puts the keys into force.  Where an earlier daemon has rotated them, those in the table count."""
        before = self._core.domains()
        for i, key in enumerate(self._keys):
            if key is None:
                continue
            self.domains[i].signing = before[i] if i < len(before) and before[i] else 0
            if not self.domains[i].signing:
                self._core.set_key(i * MAX_KEYS, hmac_states(key))

    def fields(self) -> list[dict[str, Any]]:
        return [domain.fields() for domain in self.domains]

    def _slot(self, network: str | None, number: int) -> tuple[Domain, int]:
        for i, domain in enumerate(self.domains):
            if domain.network == (network or EVERYBODY):
                if domain.signing is None:
                    raise BadDomain("this agent was started without a key for that domain: it neither signs nor checks")
                if not 0 <= number < MAX_KEYS:
                    raise BadDomain(f"key number {number}: 0 to {MAX_KEYS - 1}")
                return domain, i * MAX_KEYS + number
        raise BadDomain(f"no domain {network} here: {', '.join(d.network for d in self.domains)}")

    def set_key(self, network: str | None, number: int, file: Path, use: bool) -> int | None:
        """Makes a key valid under a number; `use`: also signs with it.  Returns the number that signs."""
        domain, slot = self._slot(network, number)
        try:
            self._core.set_key(slot, hmac_states(read_key(file)))
        except BadKey as error:
            raise BadDomain(str(error)) from error
        if use:
            domain.signing = number
        return domain.signing

    def drop_key(self, network: str | None, number: int) -> int | None:
        domain, slot = self._slot(network, number)
        if number == domain.signing:
            raise BadDomain(f"key {number} is the one that this agent signs with: use another one first")
        self._core.drop_key(slot)
        return domain.signing
