# SPDX-License-Identifier: Apache-2.0
"""A rate limiter: tc's token bucket (tbf) or hierarchical token bucket (htb) at the host's interface."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from middleboxes.box import Place
from middleboxes.shaping import MIN_QUEUE_PACKETS, commands


@dataclass
class RateLimiter:
    """Limits what leaves by a device to so many Mbit/s."""

    rate_mbps: float
    shaper: str = "htb"
    device: str = "eth0"
    least_packets: int = MIN_QUEUE_PACKETS  # room in its queue
    _place: Place | None = field(default=None, repr=False)

    def start(self, place: Place) -> None:
        self._place = place
        place.run(["tc", "-batch", "-"], "\n".join(commands(self.device, self.rate_mbps, self.shaper, self.least_packets)))

    def ready(self) -> bool:
        return self._place is not None

    def stop(self) -> None:
        if self._place:
            self._place.run(["tc", "qdisc", "del", "dev", self.device, "root"])

    def counters(self) -> dict[str, int]:
        """What has passed it, and what did not fit into its queue."""
        assert self._place
        shown = json.loads(self._place.run(["tc", "-j", "-s", "qdisc", "show", "dev", self.device]))
        root = next(q for q in shown if q.get("root"))
        return {"bytes": int(root["bytes"]), "packets": int(root["packets"]), "dropped": int(root["drops"])}
