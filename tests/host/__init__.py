# SPDX-License-Identifier: Apache-2.0
"""The protocol on the host library: the core as a library, the agents' own Python code, TCP end points and a network of
their own; one test a row of docs/verification.md, one clock that the test moves."""
