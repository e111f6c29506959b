# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The eBPF backend: tc programs in C, and what loads and attaches them."""
