# SPDX-License-Identifier: Apache-2.0
"""Traffic tools of the lab."""
