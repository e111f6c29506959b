# SPDX-License-Identifier: Apache-2.0
"""The laboratory: Mininet networks with a Dysco agent in every host, experiments, results."""
