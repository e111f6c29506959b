# SPDX-License-Identifier: Apache-2.0
"""How an agent starts: the addresses that it serves, and what becomes of its process if nobody waits for it any more."""

import os

from dysco_ns import netns
from dysco_ns.agent import daemon, launch
from dysco_ns.netns import Interface


def addresses(*numbers):
    return [Interface(1 + n % 3, f"eth{n % 3}", bytes(6), f"10.0.{n}.1") for n in numbers]


def test_an_agent_serves_eight_addresses_keeps_those_that_it_has_and_names_the_others_once(monkeypatch, capsys):
    here = addresses(*range(10))
    monkeypatch.setattr(netns, "interfaces", lambda names: here)
    served = daemon.own_interfaces(())
    assert served == here[:8]
    said = capsys.readouterr().err
    assert said == "10 addresses here, and an agent serves 8: left alone are 10.0.8.1, 10.0.9.1\n"
    here = addresses(20, *reversed(range(10)))  # one has come, and the order is another
    assert daemon.own_interfaces((), served) == [i for i in here if i in served]
    here = addresses(2, 9)  # most have gone: there is room
    assert daemon.own_interfaces((), served) == here
    assert capsys.readouterr().err == ""


def test_ports_that_are_reserved_already_are_understood():
    assert netns._ranges("8080,20000-32767,9") == [(8080, 8080), (20000, 32767), (9, 9)]
    assert netns._ranges("") == []


def test_a_child_whose_parent_has_gone_ends_and_does_nothing_else():
    """It would go on with what its parent was doing: another run of the same tests, say."""
    hear, said = os.pipe()
    os.close(hear)
    pid = os.fork()
    if not pid:
        try:
            launch._child(launch.AgentTarget("nobody", 2**22 + 1, None, {}), None, said)  # no process has that number
        finally:
            os._exit(7)
    os.close(said)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
