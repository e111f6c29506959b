# SPDX-License-Identifier: Apache-2.0
"""Wrong changes to the core that the simulator must catch: a survivor is a hole in the checks, or is explained."""
