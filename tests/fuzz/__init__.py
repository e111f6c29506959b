# SPDX-License-Identifier: Apache-2.0
"""Hostile input for the core: `make fuzz` searches, the tests here repeat what it has found."""
