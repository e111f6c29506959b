# SPDX-License-Identifier: Apache-2.0
"""Dysco for a network namespace: packet core, backends, agent, policy."""
