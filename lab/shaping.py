# SPDX-License-Identifier: Apache-2.0
"""Link rates: the lab's links are shaped as its rate limiters are."""

from middleboxes.shaping import QUEUE_MS, commands, queue_bytes, queue_packets

__all__ = ["QUEUE_MS", "commands", "queue_bytes", "queue_packets"]
