#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian or Ubuntu packages that are missing, and makes the virtual environment.
# Called by make only when its stamp is out of date; asks for nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(mininet clang llvm libbpf-dev linux-libc-dev gcc make pkg-config util-linux iproute2 iptables ethtool iputils-ping
	iperf3 tcpdump tshark conntrack runc spin libpcap-dev libpcap0.8 libxxhash-dev python3-venv python3-dev procps git
	nginx libnginx-mod-stream haproxy squid prads wrk openvswitch-switch openssh-client openssh-server)
services=(nginx haproxy squid prads suricata openvswitch-switch openssh-server) # run inside the lab's hosts alone
optional=(suricata)                           # not in every distribution; `make doctor` says

say() { printf 'set-up: %s\n' "$*"; }
fail() { printf 'set-up: %s\n' "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@" || sudo "$@"; fi; }

command -v apt-get >/dev/null || fail "this needs a Debian or Ubuntu system (apt-get is missing)"
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null || fail "not root and no sudo: run this as root"

missing=()
for package in "${packages[@]}"; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
# libbpf.so.1 is libbpf1 on Debian 12 and Ubuntu 24.04; bpftool has different homes
for package in bpftool linux-tools-common; do
	command -v bpftool >/dev/null || { apt-cache show "$package" >/dev/null 2>&1 && missing+=("$package") && break; }
done

# Debian starts a service when its package is installed, unless this file says no
guard=/usr/sbin/policy-rc.d
guard_off() { [ -z "${guarded:-}" ] || as_root rm -f "$guard"; }
guard_on() {
	[ ! -e "$guard" ] || return 0
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$guard" >/dev/null
	as_root chmod 755 "$guard"
	guarded=yes
}

# A service that this set-up has brought does not start with the machine, either.
keep_down() {
	command -v systemctl >/dev/null || return 0
	for service in "${services[@]}"; do
		[[ " $* " != *" $service "* ]] || as_root systemctl disable --quiet "${service/openssh-server/ssh}" >/dev/null 2>&1 || true
	done
}

if [ ${#missing[@]} -gt 0 ]; then
	as_root apt-get -qq update || fail "apt-get update failed: is the network there?"
	for package in "${optional[@]}"; do
		command -v "$package" >/dev/null || [ -z "$(apt-cache madison "$package" 2>/dev/null)" ] || missing+=("$package")
	done
	say "installing ${missing[*]}"
	trap guard_off EXIT
	guard_on
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null \
		|| fail "apt-get install failed: ${missing[*]}"
	keep_down "${missing[@]}"
fi

# Debian's Mininet lives under /usr/bin/python3: the environment is built from it and sees its packages
[ -x .venv/bin/python ] || { say "making the virtual environment"; /usr/bin/python3 -m venv --system-site-packages .venv; }
say "installing Python packages"
.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,testbed]' || fail "pip install failed: is the network there?"
.venv/bin/python -c 'import mininet.node' || fail "Mininet cannot be imported from /usr/bin/python3"
