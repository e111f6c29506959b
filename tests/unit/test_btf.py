# SPDX-License-Identifier: Apache-2.0
"""Layouts from BTF against the C compiler's own sizes and offsets."""

import subprocess
from pathlib import Path

import pytest

from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT

CORE = Path(__file__).resolve().parents[2] / "dysco_ns" / "core"
STRUCTS = ("five_tuple", "translation", "entry", "session", "config", "policy", "hmac_key", "next_hop", "command", "event")


@pytest.fixture(scope="module")
def btf():
    return Btf(OBJECT)


def test_sizes_are_those_of_the_c_compiler(btf, tmp_path):
    prints = "".join(f'printf("%zu\\n", sizeof(struct {name}));' for name in STRUCTS)
    source = tmp_path / "sizes.c"
    source.write_text(f'#include <stdio.h>\n#include "types.h"\n#include "reasons.h"\nint main(void) {{ {prints} return 0; }}\n')
    program = tmp_path / "sizes"
    subprocess.run(["gcc", f"-I{CORE}", str(source), "-o", str(program)], check=True)
    sizes = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.split()
    assert {name: btf.layout(name).size for name in STRUCTS} == dict(zip(STRUCTS, map(int, sizes), strict=True))


def test_encoding_and_decoding_are_inverse(btf):
    entry = {
        "to": {"to": {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 80, "dport": 65535}, "window_shift": -3, "seq_delta": 2**31},
        "nonce": 2**63 + 5,
        "flags": 7,
    }
    decoded = btf.layout("entry").decode(btf.layout("entry").encode(entry))
    assert decoded["to"]["to"] == entry["to"]["to"]
    assert decoded["to"]["window_shift"] == -3
    assert (decoded["nonce"], decoded["flags"], decoded["packets"]) == (2**63 + 5, 7, 0)


def test_ports_and_addresses_lie_in_network_order(btf):
    raw = btf.layout("five_tuple").encode({"src": "1.2.3.4", "dst": "5.6.7.8", "sport": 0x1234, "dport": 0x5678})
    assert raw == bytes([1, 2, 3, 4, 5, 6, 7, 8, 0x12, 0x34, 0x56, 0x78])


def test_an_unknown_field_is_an_error(btf):
    with pytest.raises(KeyError, match="no field"):
        btf.layout("entry").encode({"colour": 1})


def test_enumerations_give_names(btf):
    assert btf.enum("lock_state") == {0: "UNLOCKED", 1: "LOCK_PENDING", 2: "LOCKED"}
