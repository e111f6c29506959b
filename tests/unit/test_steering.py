# SPDX-License-Identifier: Apache-2.0
"""Steering by forwarding rules: where they are, what they match, what the controller reads."""

import struct

import pytest

from lab import environment
from lab.steering import asking_rules, hops, static_rules
from lab.switches import FIRST_TRUNK, Switches
from lab.tools.controller.app import Told, five_tuple
from lab.topologies import build


@pytest.fixture
def network(tmp_path):
    topology = build("switched", {"middleboxes": "3"})
    return topology, Switches(None, tmp_path, topology)


def test_every_port_of_a_switch_has_a_number_of_its_own(network):
    _, switches = network
    assert switches.ports("s1") == {"to-client": 1, "s1-s2": FIRST_TRUNK}
    assert switches.ports("s2") == {"to-mb1": 1, "to-mb2": 2, "to-mb3": 3, "s2-s1": FIRST_TRUNK, "s2-s3": FIRST_TRUNK + 1}


def test_a_hop_into_each_middlebox_each_way_and_none_to_the_ends(network):
    topology, switches = network
    mac = {host.name: host.mac for host in topology.hosts}
    rightward, leftward = hops(topology, switches)
    assert [(hop.switch, hop.port, hop.to, hop.out) for hop in rightward] == [
        ("s1", 1, mac["mb1"], FIRST_TRUNK), ("s2", 1, mac["mb2"], 2), ("s2", 2, mac["mb3"], 3),
    ]  # fmt: skip
    assert [(hop.switch, hop.port, hop.to, hop.out) for hop in leftward] == [
        ("s3", 1, mac["mb3"], FIRST_TRUNK), ("s2", 3, mac["mb2"], 2), ("s2", 2, mac["mb1"], 1),
    ]  # fmt: skip


def test_a_switch_knows_the_way_to_every_host(network):
    _, switches = network
    ways = {name: [switches.towards(name, host) for host in ("client", "mb2", "server")] for name in switches.names}
    assert ways == {"s1": [1, 101, 101], "s2": [101, 2, 102], "s3": [101, 101, 1]}


def test_static_rules_match_the_ports_of_the_policy(network):
    rules = static_rules(*network)
    assert {name: len(found) for name, found in rules.items()} == {"s1": 1, "s2": 4, "s3": 1}
    assert "in_port=1,tcp,tp_dst=0x1388/0xfff8,actions=mod_dl_dst:" in rules["s1"][0] and "tp_src=" in rules["s3"][0]


@pytest.mark.parametrize(("unknown", "counts"), [("forward", (1, 0, 0)), ("drop", (1, 4, 1))])
def test_only_what_comes_from_the_client_asks_the_controller(network, unknown, counts):
    rules = asking_rules(*network, unknown)
    assert tuple(map(len, rules.values())) == counts
    assert rules["s1"][0].endswith("actions=controller")
    assert all(rule.endswith("actions=drop") for name in ("s2", "s3") for rule in rules[name])


@pytest.mark.parametrize("options", [b"", b"\1" * 4])
def test_the_controller_reads_the_five_tuple_behind_ip_options(options):
    header = bytes([0x45 + len(options) // 4]) + bytes(8) + b"\6" + bytes(2) + bytes([10, 0, 0, 2, 10, 0, 5, 2]) + options
    frame = bytes(12) + b"\x08\x00" + header + struct.pack("!HH", 40000, 5001) + bytes(16)
    assert five_tuple(frame) == ("10.0.0.2", 40000, "10.0.5.2", 5001)


def test_the_controller_is_told_by_a_file(tmp_path):
    (tmp_path / "told.json").write_text('{"switches": 1, "rightward": [[1, 1, "02:00:0a:00:01:02", 2]], "leftward": []}')
    told = Told.read(tmp_path / "told.json")
    assert told.switches == 1 and told.rightward[0][2] == "02:00:0a:00:01:02"


def test_a_python_package_that_is_missing_is_one_line():
    environment.need(("python:json",), "x")
    with pytest.raises(environment.MissingTool, match=r"x needs the Python package no_such_module, .*`make setup` installs it"):
        environment.need(("python:no_such_module",), "x")
