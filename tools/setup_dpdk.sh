#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs DPDK's libraries and headers if they are missing.  Called by `make dpdk` and what needs it.
set -euo pipefail

fail() { printf 'dpdk: %s\n' "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@" || sudo "$@"; fi; }

if ! pkg-config --exists libdpdk; then
	printf 'dpdk: installing libdpdk-dev\n'
	as_root apt-get -qq update || fail "apt-get update failed: is the network there?"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends libdpdk-dev >/dev/null \
		|| fail "apt-get install libdpdk-dev failed"
fi
pkg-config --atleast-version 22.11 libdpdk || fail "DPDK $(pkg-config --modversion libdpdk) is here, 22.11 or later is needed"
