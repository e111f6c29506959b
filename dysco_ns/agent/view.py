# SPDX-License-Identifier: Apache-2.0
"""Sessions as users read them: `dysco sessions` prints what this module makes of the tables.

The JSON schema is version 1; docs/interfaces.md describes its fields.
"""

from __future__ import annotations

from typing import Any

from dysco_ns.agent.core import Core

SCHEMA = 1
FIRST, LAST, SPLICED, LEFT_CHAIN, FINS, NAT = 1, 2, 4, 8, 16 | 32, 512
LOCKS = ("unlocked", "lockPending", "locked")
PHASES = {1: "locking", 2: "handshake", 3: "two paths", 4: "settling", 5: "done"}


def five_tuple(t: dict[str, Any]) -> str | None:
    """'a:p > b:q', or None where there is none."""
    return f"{t['src']}:{t['sport']} > {t['dst']}:{t['dport']}" if t["dport"] else None


def reverse(t: dict[str, Any]) -> dict[str, Any]:
    return {"src": t["dst"], "dst": t["src"], "sport": t["dport"], "dport": t["sport"]}


def role(flags: int) -> str:
    ends = {FIRST: "first", LAST: "last", FIRST | LAST: "only"}
    return ends.get(flags & (FIRST | LAST), "middlebox")


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def _traffic(core: Core, s: dict[str, Any]) -> dict[str, Any]:
    counters, deltas = {}, {}
    legs = (("left", s["left_sub"], reverse(s["left_tuple"]), s["left_sub"]),
            ("right", s["right_sub"], s["right_tuple"], reverse(s["right_sub"])))  # fmt: skip
    for side, sub, out_key, in_key in legs:
        if not sub["dport"]:
            continue
        out, arriving = core.egress_map.get(out_key), core.ingress_map.get(in_key)
        if out and arriving:
            counters[side] = {
                "packets_out": out["packets"],
                "bytes_out": out["bytes"],
                "packets_in": arriving["packets"],
                "bytes_in": arriving["bytes"],
            }
            deltas[side] = {
                "seq_in": _signed(arriving["to"]["seq_delta"]),
                "ack_out": _signed(out["to"]["ack_delta"]),
                "beta_out": _signed((-out["to"]["seq_delta"]) & 0xFFFFFFFF),
                "beta_in": _signed((-out["to"]["ack_delta"] - s["leg_delta"][0 if side == "left" else 1]) & 0xFFFFFFFF),
            }
    return {"counters": counters, "deltas": deltas}


def describe(core: Core, nonce: int, s: dict[str, Any]) -> dict[str, Any]:
    """One session as JSON."""
    flags = s["flags"]
    record = core.record(nonce, 1) or core.record(nonce, 0)
    if s["over_ns"]:
        state = "over"
    elif not s["offer"][1]["has"]:
        state = "opening"
    else:
        state = "half-closed" if flags & FINS else "established"
    if record and record["phase"] < 5 and state not in ("over", "opening"):
        state = f"reconfiguring: {PHASES[record['phase']]}"
    return {
        "id": f"{nonce:016x}",
        "tuple": five_tuple(s["left_tuple"] if s["left_sub"]["dport"] else s["right_tuple"]),
        "left": five_tuple(s["left_sub"]),
        "right": five_tuple(s["right_sub"]),
        "neighbours": {
            "left": s["left_sub"]["src"] if s["left_sub"]["dport"] else None,
            "right": s["right_sub"]["dst"] if s["right_sub"]["dport"] else None,
        },
        "known_as": {side: f"{other or nonce:016x}" for side, other in zip(("left", "right"), s["known_as"], strict=True)},
        "chain": [box for box in s["chain"][: s["chain_length"]] if box != s["right_tuple"]["dst"]],
        "role": role(flags),
        "state": state,
        "left_chain": bool(flags & LEFT_CHAIN),
        "behind_nat": bool(flags & NAT),
        "spliced_to": f"{s['peer']:016x}" if flags & SPLICED else None,
        "lock": LOCKS[s["lock"]],
        **_traffic(core, s),
    }
