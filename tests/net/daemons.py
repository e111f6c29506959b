# SPDX-License-Identifier: Apache-2.0
"""Daemons that die and come back, while their data paths go on."""

import os
import signal

from dysco_ns.agent.launch import AgentTarget, start_agents
from lab.network import KEY_FILE


def killed(lab, host):
    """The host's daemon dies; its data path stays."""
    os.kill(lab.state.agents[host].pid, signal.SIGKILL)


def started_again(lab, host):
    """A daemon takes up what the one that was killed has left."""
    place = lab.topology.host(host)
    target = AgentTarget(host, lab.pid(host), KEY_FILE if lab.topology.sign else None, lab.topology.names, backend=place.backend,
                         workers=place.workers)  # fmt: skip
    (handle,) = start_agents([target])
    lab.state.agents[host] = type(lab.state.agents[host]).of(handle.pid, host)
