# SPDX-License-Identifier: Apache-2.0
"""Key preparation against Python's own hashlib and hmac."""

import hashlib
import hmac
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dysco_ns.agent import keys


def test_constants_and_one_block_agree_with_hashlib():
    padded = b"abc" + b"\x80" + bytes(52) + struct.pack(">Q", 24)
    assert struct.pack(">8I", *keys.compress(keys.INITIAL, padded)) == hashlib.sha256(b"abc").digest()


@settings(deadline=None)  # of a machine that others use too
@given(st.binary(min_size=16, max_size=64), st.binary(max_size=55))
def test_hmac_from_prepared_states_agrees_with_hmac(key, message):
    states = keys.hmac_states(key)
    block = message + b"\x80" + bytes(55 - len(message)) + struct.pack(">Q", 8 * (64 + len(message)))
    inner = struct.pack(">8I", *keys.compress(states["inner"], block))
    block = inner + b"\x80" + bytes(23) + struct.pack(">Q", 8 * 96)
    assert struct.pack(">8I", *keys.compress(states["outer"], block)) == hmac.digest(key, message, "sha256")


@pytest.mark.parametrize(("content", "mode", "why"), [(b"x" * 8, 0o600, "16 to 64"), (b"x" * 20, 0o644, "chmod 600")])
def test_bad_key_files_are_refused_with_the_reason(tmp_path, content, mode, why):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(keys.BadKey, match=why):
        keys.read_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"x" * 20)
    path.chmod(0o600)
    assert keys.read_key(path) == b"x" * 20
    os.chown(path, 1234, -1)
    with pytest.raises(keys.BadKey, match="belongs to user 1234"):
        keys.read_key(path)


def test_a_key_file_that_is_a_directory_is_refused(tmp_path):
    with pytest.raises(keys.BadKey, match="directory"):
        keys.read_key(tmp_path)
