# SPDX-License-Identifier: Apache-2.0
"""The agent daemon of one namespace: loads the data path, leads reconfigurations, keeps timers, serves its socket."""
