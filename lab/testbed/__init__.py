# SPDX-License-Identifier: Apache-2.0
"""Machines in the place of namespaces: an inventory, Ansible that prepares them, experiments over ssh.  docs/testbed.md"""
