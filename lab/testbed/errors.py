# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a testbed: one line each, for its owner."""


class BadInventory(Exception):
    """An inventory that is no description of a testbed: the file, the place in it, and what is wrong there."""


class PlayFailed(Exception):
    """A play did not succeed: on which machine, and what it said there."""
