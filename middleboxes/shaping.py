# SPDX-License-Identifier: Apache-2.0
"""Link rates by htb or tbf, as lines for `tc -batch`.

With htb, control segments (DSCP CS6) get a class of their own: a lock must not queue behind bulk data.  Both shapers
take GSO super-packets whole, so a burst is never smaller than one of those.
"""

from __future__ import annotations

QUEUE_MS = 200  # hundreds of sessions share a link: with less, each has a packet or two and lives on timeouts
MIN_QUEUE_PACKETS = 1000
PACKET_BYTES = 1514
BURST_BYTES = 70_000
CONTROL_SHARE = 0.05


def queue_packets(rate_mbps: float, least: int = MIN_QUEUE_PACKETS) -> int:
    return max(least, int(rate_mbps * 1e6 / 8 * QUEUE_MS / 1000 / PACKET_BYTES))


def queue_bytes(rate_mbps: float, least: int = MIN_QUEUE_PACKETS) -> int:
    return queue_packets(rate_mbps, least) * PACKET_BYTES


def _htb(device: str, rate: float, queue: int) -> list[str]:
    control = max(rate * CONTROL_SHARE, 0.1)
    return [
        f"qdisc add dev {device} root handle 1: htb default 10",
        f"class add dev {device} parent 1: classid 1:1 htb rate {rate}mbit ceil {rate}mbit burst {BURST_BYTES}",
        f"class add dev {device} parent 1:1 classid 1:10 htb rate {rate - control}mbit ceil {rate}mbit "
        f"burst {BURST_BYTES} cburst {BURST_BYTES} prio 1",
        f"class add dev {device} parent 1:1 classid 1:20 htb rate {control}mbit ceil {rate}mbit burst 15k prio 0",
        f"qdisc add dev {device} parent 1:10 handle 10: bfifo limit {queue}",
        f"qdisc add dev {device} parent 1:20 handle 20: bfifo limit {MIN_QUEUE_PACKETS * PACKET_BYTES}",
        f"filter add dev {device} parent 1: protocol ip u32 match ip tos 0xc0 0xfc flowid 1:20",
    ]


def _tbf(device: str, rate: float, queue: int) -> list[str]:
    return [f"qdisc add dev {device} root tbf rate {rate}mbit burst {BURST_BYTES} limit {queue}"]


def commands(device: str, rate_mbps: float, shaper: str, least_packets: int = MIN_QUEUE_PACKETS) -> list[str]:
    """tc commands that limit what leaves by `device`; its queue has room for `least_packets` or more."""
    queue = queue_bytes(rate_mbps, least_packets)
    return _htb(device, rate_mbps, queue) if shaper == "htb" else _tbf(device, rate_mbps, queue)
