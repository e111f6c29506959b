# SPDX-License-Identifier: Apache-2.0
"""The core as a DPDK application (C), and what the agent daemon needs to start and drive it."""
