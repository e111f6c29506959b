#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make fuzz TIME=seconds: libFuzzer on the core, under AddressSanitizer and UndefinedBehaviorSanitizer.
# What it has found interesting stays in build/fuzz-corpus; a finding is a file crash-* there, and exit status 1.
set -euo pipefail
cd "$(dirname "$0")/../.."

major=$(clang -dumpversion | cut -d. -f1)
runtime=$(clang -print-file-name=libclang_rt.fuzzer-x86_64.a)
if [ ! -e "$runtime" ]; then
	echo "fuzz: installing libclang-rt-$major-dev"
	if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
	$sudo apt-get -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "libclang-rt-$major-dev" >/dev/null
fi
mkdir -p build/fuzz-corpus
clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Wall -Wextra -Wno-unused-function \
	-Wno-unknown-warning-option -Idysco_ns/core -Idysco_ns/host tests/fuzz/packets.c dysco_ns/host/agent.c -o build/fuzz
exec build/fuzz -max_total_time="${1:-60}" -max_len=2048 -timeout="${FUZZ_UNIT_S:-5}" -print_final_stats=1 \
	-artifact_prefix=build/fuzz-corpus/ build/fuzz-corpus
