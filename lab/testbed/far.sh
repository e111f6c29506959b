#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a machine of a testbed notes about us, so that it can be cleaned up whatever happens: which processes are ours, and how
# each change is undone, written down before the change is made.
#
# usage: far.sh FOLDER run ID COMMAND...        runs a command that `signal` and `clean` can find
#        far.sh FOLDER signal ID NAME           sends it a signal
#        far.sh FOLDER do UNDO COMMAND...       a change
#        far.sh FOLDER sysctl NAME=VALUE...     NAME with slashes
#        far.sh FOLDER address DEVICE ADDRESS   if it is not there
#        far.sh FOLDER off DEVICE FEATURE       of ethtool -k, if it is on
#        far.sh FOLDER bind PCI DRIVER          a NIC to another driver
#        far.sh FOLDER clean                    ends the processes, undoes the changes, latest first; may run again
#        far.sh FOLDER facts INTERFACE PCI      what an experiment's record should know; - for none
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
folder=$1 word=$2
shift 2
mkdir -p "$folder"

# when a process started; empty if there is none, or only its zombie
started() { sed -n 's/.*) \([^Z] .*\)/\1/p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

do_() {
	undo=$1
	shift
	printf '%s\n' "$undo" >"$folder/undo-$(date +%s%N)"
	"$@" >/dev/null
}

send() { # the process of a file, if it still is that process
	read -r pid since <"$1" || return 0
	[ "$(started "$pid")" != "$since" ] || kill "-$2" "$pid"
}

sysctl_() {
	for pair in "$@"; do
		file=/proc/sys/${pair%%=*} value=${pair#*=}
		[ -e "$file" ] || continue
		before=$(tr '\t' ' ' <"$file")
		[ "$before" = "$value" ] || do_ "echo '$before' >$file" sh -c "echo '$value' >$file"
	done
}

clean() {
	for name in TERM KILL; do
		for file in "$folder"/process-*; do
			[ ! -e "$file" ] || send "$file" $name || true
		done
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			left=
			for file in "$folder"/process-*; do
				[ -e "$file" ] && read -r pid since <"$file" && [ "$(started "$pid")" = "$since" ] && left=yes
			done
			[ "$left" ] || break
			sleep 0.2
		done
	done
	rm -f "$folder"/process-*
	for file in $(find "$folder" -name 'undo-*' | sort -r); do
		sh -c "$(cat "$file")" >/dev/null 2>"$folder/said" || echo "not undone: $(cat "$file"): $(head -1 "$folder/said")"
		rm -f "$file"
	done
	rm -rf "$folder"
	rmdir "$(dirname "$folder")" 2>/dev/null || true
}

facts() {
	uname -a
	grep -m1 'model name' /proc/cpuinfo || true
	echo "command line: $(cat /proc/cmdline)"
	echo "isolated: $(cat /sys/devices/system/cpu/isolated)"
	grep -i huge /proc/meminfo
	if [ "$1" != - ]; then
		ip -s address show dev "$1" || true
		ethtool -i "$1" || true
		ethtool -k "$1" || true
	fi
	if [ "$2" != - ]; then
		echo "driver of $2: $(basename "$(readlink "/sys/bus/pci/devices/$2/driver")")"
		echo "NUMA node: $(cat "/sys/bus/pci/devices/$2/numa_node")"
	fi
	cat /run/dysco/"$(stat -Lc %i /proc/self/ns/net)".dpdk.log 2>/dev/null || true
}

case $word in
run)
	id=$1
	shift
	echo "$$ $(started $$)" >"$folder/process-$id"
	exec "$@"
	;;
signal) [ ! -e "$folder/process-$1" ] || send "$folder/process-$1" "$2" ;;
do) do_ "$@" ;;
sysctl) sysctl_ "$@" ;;
address) ip -4 -o address show dev "$1" | grep -qF " $2 " || do_ "ip address del $2 dev $1" ip address add "$2" dev "$1" ;;
off) ! ethtool -k "$1" | grep -q "^$2: on$" || do_ "ethtool -K $1 $2 on" ethtool -K "$1" "$2" off ;;
bind)
	modprobe "$2"
	[ "$(basename "$(readlink "/sys/bus/pci/devices/$1/driver")")" = "$2" ] ||
		do_ "driverctl --nosave unset-override $1" driverctl --nosave set-override "$1" "$2"
	;;
clean) clean ;;
facts) facts "$@" 2>/dev/null ;;
*)
	echo "far.sh: $word: what is this?" >&2
	exit 2
	;;
esac
