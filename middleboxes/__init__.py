# SPDX-License-Identifier: Apache-2.0
"""Middleboxes: real software behind one small interface (box.py)."""
