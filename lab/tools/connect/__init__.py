# SPDX-License-Identifier: Apache-2.0
"""connect: how long does connect() take?"""
