# SPDX-License-Identifier: Apache-2.0
"""The judge of captures finds what it is there for: written captures with one thing wrong each."""

import dataclasses
import struct

import pytest

from lab.judge import ACK, FIN, RST, SYN, Segment, betas, judge, judged

A, B = ("10.0.0.2", 20001), ("10.0.9.2", 5001)
CONTROL = ("10.0.0.2", 26385)
ISN, PEER_ISN = 2**32 - 500, 7000  # the numbers wrap around within the first segment
NONCE = bytes.fromhex("0123456789abcdef")


def setup(new):
    """A set-up message: header, two five-tuples, chain, and the field of a reconfiguration."""
    fields = bytes([0x81, 6]) + bytes(4) + (bytes([0x82, 15]) + bytes(13) if new else b"")
    return b"DY\x14\x01" + struct.pack("!HBB", 40 + len(fields), 0, 0) + NONCE + bytes(24) + fields


def segment(time, src, dst, seq, ack, flags, length=0, payload=b"", options=()):
    return Segment(time, src, dst, seq % 2**32, ack % 2**32, flags, length, options, payload)


def opened(left=A, new=False, isn=ISN, time=0.0):
    message = setup(new)
    return [
        segment(time, left, B, isn, 0, SYN, len(message), message),
        segment(time, B, left, PEER_ISN, isn + 1, SYN | ACK),
        segment(time, left, B, isn + 1, PEER_ISN + 1, ACK),
    ]


def data(offset, length, src=A, dst=B, isn=ISN, ack=PEER_ISN + 1, time=1.0, flags=ACK):
    return segment(time, src, dst, isn + 1 + offset, ack, flags, length)


def answer(acked, dst=A, isn=ISN):
    return segment(1.0, B, dst, PEER_ISN + 1, isn + 1 + acked, ACK)


def test_an_ordinary_connection():
    said = [data(0, 1000), data(1000, 500), answer(1500), data(0, 1000), data(1500, 0, flags=ACK | FIN)]
    (path,) = judge([*opened(), *said]).paths
    assert (path.left, path.right, path.nonce, path.new) == (A, B, NONCE.hex(), False)
    assert (path.gap_bytes_max, path.ack_above_max, path.rightward.bytes, path.reset) == (0, 0, 1501, False)


@pytest.mark.parametrize("isn", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_sequence_numbers_begin_anywhere(isn):
    (path,) = judge([*opened(isn=isn), data(0, 3000, isn=isn), answer(3000, isn=isn)]).paths
    assert (path.gap_bytes_max, path.ack_above_max) == (0, 0)


def test_a_path_that_does_not_begin_at_its_isn():
    (path,) = judge([*opened(new=True), data(777, 1000), answer(1777)]).new_paths()
    assert (path.rightward.first_offset, path.gap_bytes_max) == (777, 777)


def test_a_path_that_begins_before_its_isn():
    assert judge([*opened(new=True), data(-100, 1000)]).paths[0].gap_bytes_max == 100


def test_a_gap():
    assert judge([*opened(), data(0, 1000), data(1001, 1000)]).paths[0].gap_bytes_max == 1


def test_an_acknowledgment_of_what_the_path_has_not_carried():
    path = judge([*opened(), data(0, 1000), answer(1001), answer(1000)]).paths[0]
    assert (path.ack_above_max, path.gap_bytes_max) == (1, 0)


def test_what_is_skipped_and_comes_later_is_not_missing():
    late = [data(0, 1000), data(3000, 1000), data(1500, 700), data(1000, 500), data(2200, 800)]
    for count, missing in ((2, 2000), (3, 1300), (4, 800), (5, 0)):
        path = judge([*opened(), *late[:count]]).paths[0]
        assert path.rightward.missing_bytes == missing
        assert path.faults() == ({"missing_bytes": missing} if missing else {})
        assert path.faults(beside=[A[0]])["skipped_bytes_max"] == 2000


def test_bytes_from_before_the_path_are_early_whenever_they_come():
    path = judge([*opened(new=True), data(0, 1000), data(-100, 200)]).paths[0]
    assert path.faults() == {"early_bytes_max": 100}


def stamped(s, tsval, tsecr=0):
    return dataclasses.replace(s, tsval=tsval % 2**32, tsecr=tsecr % 2**32)


def test_timestamps_that_fall_and_echoes_of_what_was_never_sent():
    syn, synack, ack = opened()
    start = [stamped(syn, -5), stamped(synack, 100, -5), stamped(ack, -5, 100)]
    good = [*start, stamped(data(0, 10), -1, 100), stamped(answer(10), 110, -1), stamped(data(10, 10), 4, 110)]
    assert judge(good).paths[0].faults(beside=[A[0]]) == {}
    fallen = judge([*good, stamped(data(20, 10), 1, 110)]).paths[0]
    assert fallen.faults(beside=[A[0]]) == {"tsval_behind_max": 3, "stale_news_max": 3}
    assert judge([*good, stamped(answer(20), 120, 11)]).paths[0].faults(beside=[A[0]]) == {"echo_above_max": 7}


def test_what_was_overtaken_may_be_older_but_no_news_that_its_receiver_drops():
    start = [stamped(s, 100, 100) for s in opened()]
    overtaken = [stamped(data(10, 10), 120, 100), stamped(data(0, 10), 105, 100)]
    assert judge([*start, *overtaken]).paths[0].faults() == {}
    dropped = [stamped(data(0, 10), 120, 100), stamped(answer(10), 100, 120), stamped(data(10, 10), 118, 100)]
    assert judge([*start, *dropped]).paths[0].faults() == {"stale_news_max": 2}


def test_what_an_agent_writes_may_overtake():
    """Its class has a share of its own of each link: data of before comes behind it."""
    start = [stamped(s, 100, 100) for s in opened()]
    early = dataclasses.replace(stamped(data(500, 0), 300, 100), urgent=True)
    assert judge([*start, early, stamped(data(0, 500), 200, 100)]).paths[0].faults(beside=[A[0]]) == {}


def test_resets_are_seen_and_control_segments_are_not():
    control = [segment(0.0, CONTROL, B, 5, 0, SYN, 52, options=("254",)), segment(0.1, CONTROL, B, 99, 7, ACK, 52)]
    found = judge([*control, *opened(), segment(1.0, B, A, 1, 1, RST)]).paths
    assert [(p.left, p.reset) for p in found] == [(A, True)]


def test_a_repeated_syn_is_no_second_path():
    assert len(judge([*opened(), *opened()]).paths) == 1


def test_betas_are_what_the_old_path_carried_meanwhile():
    """Three paths; on the third the numbers of the second are behind the host's own by the second's beta."""
    second, third = ("10.0.0.2", 20002), ("10.0.0.2", 20003)
    at_second, at_third = ISN + 1000, ISN + 1000 + 300 + 2000  # one less than the next byte of the host's own
    paths = judge(
        [
            *opened(),
            data(0, 1000),
            *opened(second, True, at_second, 2.0),
            data(1000, 300, time=2.1),  # on the old path still: beta is 300
            data(0, 2000, src=second, isn=at_second),
            *opened(third, True, at_third, 3.0),
            data(2000, 50, src=second, isn=at_second),
            data(0, 10, src=third, isn=at_third),
        ]
    ).paths
    assert [(path.left, beta) for path, beta in betas(paths, "rightward")] == [(second, 300), (third, 50)]


def frame(src, dst, seq, flags, payload):
    tcp = struct.pack("!HHIIBBHHH", src[1], dst[1], seq, 0, 0x50, flags, 1000, 0, 0)
    addresses = b"".join(bytes(map(int, end[0].split("."))) for end in (src, dst))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0) + addresses
    return bytes(12) + b"\x08\x00" + ip + tcp + payload


def test_files_are_read_as_they_were_captured(tmp_path):
    """Truncated frames too: a segment is as long as its IP header says."""
    frames = [frame(A, B, ISN, SYN, setup(True)), frame(A, B, (ISN + 1) % 2**32, ACK, b"x" * 9000)]
    file = tmp_path / "c.pcap"
    with file.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 192, 1))
        for i, f in enumerate(frames):
            out.write(struct.pack("<IIII", 1000 + i, 500_000, min(len(f), 192), len(f)) + f[:192])
    (path,) = judged(file).new_paths()
    assert (path.opened_s, path.nonce, path.rightward.bytes, path.gap_bytes_max) == (1000.5, NONCE.hex(), 9000, 0)
