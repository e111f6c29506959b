# SPDX-License-Identifier: Apache-2.0
"""What an end host's TCP has been offered: the judge of window throttling (docs/protocol.md 4.10)."""

from lab.judge import ahead


def overshoot(shown, since, until, throttle):
    """By how much a window offered in that time was beyond the throttle, where its right edge was beyond every one from
    before: those are not taken back.  `shown`: time in seconds, acknowledgment, window in bytes, as an end host has got them."""
    edge, worst = None, 0
    for at, ack, window in shown:
        offered = (ack + window) % 2**32
        if edge is not None and since <= at <= until and ahead(offered, edge) > 0:
            worst = max(worst, window - throttle)
        edge = offered if edge is None or ahead(offered, edge) > 0 else edge
    return worst
