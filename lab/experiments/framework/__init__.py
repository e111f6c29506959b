# SPDX-License-Identifier: Apache-2.0
"""What all experiments share: one runner, one recorder, one style of figures, and how costs are compared."""
