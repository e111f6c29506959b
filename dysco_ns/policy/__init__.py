# SPDX-License-Identifier: Apache-2.0
"""The policy side: commands and batches for agents, by the `dysco` command."""
