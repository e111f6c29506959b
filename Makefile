# SPDX-License-Identifier: Apache-2.0
# `make` prints the targets.  Every target sets up what it needs; a second run installs nothing.

PROFILE ?= quick
SET ?=
SEED ?= 1
BUILD := build
VENV := .venv/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
LAB := $(SUDO) $(VENV)/dysco-lab
MULTIARCH := $(shell gcc -dumpmachine 2>/dev/null || echo x86_64-linux-gnu)

CLANG ?= clang
BPF_FLAGS := -O2 -g -fno-unroll-loops -mcpu=v3 -target bpf -Wall -Wextra -Werror -Wno-unused-function \
	-Idysco_ns/core -I/usr/include/$(MULTIARCH)
C_FLAGS := -std=gnu11 -O2 -g -Wall -Wextra -Werror -MMD -MP

OBJECTS := $(BUILD)/dysco.bpf.o $(BUILD)/libdysco.so $(BUILD)/libdysco_preload.so $(BUILD)/tcp_proxy $(BUILD)/bridge \
	$(BUILD)/bulk $(BUILD)/connect $(BUILD)/flood $(BUILD)/longline

SIM := dysco_ns/host/agent.c $(filter-out tests/sim/main.c,$(wildcard tests/sim/*.c))
SIM_FLAGS := $(filter-out -MMD -MP,$(C_FLAGS)) -Wno-unused-function -Idysco_ns/core -Idysco_ns/host -Itests/sim
SIM_HEADERS := $(wildcard dysco_ns/core/*.h dysco_ns/host/*.h tests/sim/*.h)
SIMULATORS := $(BUILD)/libhost.so $(BUILD)/libsim.so $(BUILD)/sim $(BUILD)/sim-sanitized

EXPERIMENTS := $(patsubst lab/experiments/%.py,%,$(shell grep -l '^DESCRIPTION = ' lab/experiments/*.py))
QUICK := $(subst _,-,$(filter-out bench bench_dpdk traffic_dpdk,$(EXPERIMENTS)))

.PHONY: help setup build doctor experiments test-all bench bench-dpdk traffic-dpdk figures notebooks test test-unit verify fuzz mutants \
	simulate replay dpdk dpdk-sanitized static clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-29s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@for name in $(EXPERIMENTS); do sed -n 's/^DESCRIPTION = "\(.*\)"$$/\1/p' lab/experiments/$$name.py | \
		{ read -r text; printf 'make experiment-%-18s %s\n' $$(echo $$name | tr _ -) "$$text"; }; done
	@echo 'PROFILE=quick (default) or paper; SET="key=value ..." changes settings (dysco-lab list shows them); SEED=1'

# ---- set-up and build ----

setup: $(BUILD)/.setup ## packages, virtual environment

$(BUILD)/.setup: tools/setup.sh pyproject.toml
	@mkdir -p $(BUILD)
	@tools/setup.sh
	@touch $@

build: $(OBJECTS) ## the packet core, libdysco and the C tools

$(BUILD)/dysco.bpf.o: $(BUILD)/.setup
	$(CLANG) $(BPF_FLAGS) -MMD -MF $(BUILD)/dysco.bpf.d -MT $@ -c dysco_ns/ebpf/dysco.bpf.c -o $@

$(BUILD)/libdysco.so: dysco_ns/splice/libdysco.c $(BUILD)/.setup
	gcc $(C_FLAGS) -fPIC -shared -Wl,-soname,libdysco.so $< -o $@

$(BUILD)/tcp_proxy: $(wildcard middleboxes/tcp_proxy/*.c middleboxes/tcp_proxy/*.h) $(BUILD)/libdysco.so
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) $(filter %.c,$^) -o $@ -L$(BUILD) -ldysco -Wl,-rpath,'$$ORIGIN'

$(BUILD)/bridge: middleboxes/bridge/bridge.c $(BUILD)/.setup
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) $< -o $@

$(BUILD)/libdysco_preload.so: $(wildcard middleboxes/preload/*.c middleboxes/preload/*.h) $(BUILD)/libdysco.so
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) -fPIC -shared -fvisibility=hidden -Wl,-soname,$(@F) $(filter %.c,$^) -o $@ \
		-L$(BUILD) -ldysco -Wl,-rpath,'$$ORIGIN'

$(BUILD)/bulk: $(wildcard lab/tools/bulk/*.c lab/tools/bulk/*.h) $(BUILD)/.setup
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) $(filter %.c,$^) -o $@ -lxxhash

$(BUILD)/connect: lab/tools/connect/connect.c $(BUILD)/.setup
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) $< -o $@

$(BUILD)/flood: lab/tools/flood/flood.c $(BUILD)/.setup
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) $< -o $@

$(BUILD)/longline: lab/tools/longline/longline.c $(BUILD)/.setup
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) $< -o $@

$(BUILD)/libhost.so: $(wildcard dysco_ns/host/*.[ch] dysco_ns/core/*.h) $(BUILD)/.setup
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) -Wno-unused-function -Idysco_ns/core -Idysco_ns/host -fPIC -shared \
		$(filter %.c,$^) -o $@

$(BUILD)/libsim.so: $(SIM) $(SIM_HEADERS) $(BUILD)/.setup
	gcc $(SIM_FLAGS) -fPIC -shared $(SIM) -o $@

$(BUILD)/sim: $(SIM) tests/sim/main.c $(SIM_HEADERS) $(BUILD)/.setup
	gcc $(SIM_FLAGS) $(SIM) tests/sim/main.c -o $@

$(BUILD)/sim-sanitized: $(SIM) tests/sim/main.c $(SIM_HEADERS) $(BUILD)/.setup
	gcc $(SIM_FLAGS) -fsanitize=address,undefined -fno-omit-frame-pointer $(SIM) tests/sim/main.c -o $@

# ---- the DPDK backend: its packages are large (31 MB to fetch), so they are installed here and not by setup ----

DPDK_HEADERS := $(wildcard dysco_ns/dpdk/*.h dysco_ns/core/*.h dysco_ns/host/*.h)
DPDK_PARTS := $(filter-out dysco_ns/dpdk/main.c dysco_ns/dpdk/bench%,$(wildcard dysco_ns/dpdk/*.c))
DPDK_CFLAGS = $(filter-out -MMD -MP,$(C_FLAGS)) -D_GNU_SOURCE -Wno-unused-function \
	$(patsubst -I%,-isystem %,$(shell pkg-config --cflags libdpdk)) -Idysco_ns/core -Idysco_ns/host -Idysco_ns/dpdk -I$(BUILD)/dpdk
DPDK_LIBS = $(shell pkg-config --libs libdpdk) -lrte_net_ring

dpdk: $(BUILD)/dysco-dpdk $(BUILD)/dysco-dpdk-traffic ## the DPDK backend, a traffic generator; installs DPDK's packages (31 MB to fetch, 160 MB on disk) if they are missing

$(BUILD)/.dpdk: tools/setup_dpdk.sh $(BUILD)/.setup
	@tools/setup_dpdk.sh
	@touch $@

$(BUILD)/dpdk/counter_names.h: dysco_ns/core/reasons.h
	@mkdir -p $(@D)
	sed -n 's/^\tCOUNT_\([A-Z_]*\),.*/"\L\1",/p' $< > $@

$(BUILD)/dysco-dpdk: dysco_ns/dpdk/main.c $(DPDK_PARTS) $(DPDK_HEADERS) $(BUILD)/dpdk/counter_names.h $(BUILD)/.dpdk
	gcc $(DPDK_CFLAGS) $(filter %.c,$^) -o $@ $(DPDK_LIBS)

dpdk-sanitized: $(BUILD)/dysco-dpdk-sanitized ## the same under AddressSanitizer

$(BUILD)/dysco-dpdk-sanitized: dysco_ns/dpdk/main.c $(DPDK_PARTS) $(DPDK_HEADERS) $(BUILD)/dpdk/counter_names.h $(BUILD)/.dpdk
	gcc $(DPDK_CFLAGS) -O1 -fsanitize=address -fno-omit-frame-pointer $(filter %.c,$^) -o $@ $(DPDK_LIBS)

$(BUILD)/dysco-dpdk-bench: $(wildcard dysco_ns/dpdk/bench*.c) $(addprefix dysco_ns/dpdk/,worker.c commands.c ports.c environment.c options.c) \
		$(DPDK_HEADERS) $(BUILD)/.dpdk
	gcc $(DPDK_CFLAGS) $(filter %.c,$^) -o $@ $(DPDK_LIBS)

$(BUILD)/dysco-dpdk-traffic: $(wildcard lab/tools/traffic/*.c lab/tools/traffic/*.h) dysco_ns/dpdk/bench_flows.h $(BUILD)/.dpdk
	gcc $(DPDK_CFLAGS) -Ilab/tools/traffic $(filter %.c,$^) -o $@ $(DPDK_LIBS)

-include $(wildcard $(BUILD)/*.d)

# ---- use ----

doctor: $(BUILD)/.setup ## what this machine can and cannot run, and what to do about each
	@$(LAB) doctor

experiment-%: build
	@$(LAB) run $* --profile $(PROFILE) --seed $(SEED) $(addprefix --set ,$(SET))

experiments: build ## all experiments, one after the other; says at the end which have failed
	@failed=; for name in $(QUICK); do $(MAKE) -s experiment-$$name PROFILE=$(PROFILE) SET= || failed="$$failed $$name"; done; \
	if [ "$$failed" ]; then echo "these have failed:$$failed" >&2; exit 1; fi

bench: experiment-bench ## cost of the data path and of connect(), each beside its baseline in one run

bench-dpdk: $(BUILD)/dysco-dpdk-bench experiment-bench-dpdk ## cost of a pass of the DPDK agent, beside plain forwarding

traffic-dpdk: dpdk experiment-traffic-dpdk ## 60,000 checked sessions through the DPDK agent, beside plain forwarding

figures: build ## draws every figure again from stored results, and docs/claims.md; measures nothing
	@for run in results/*/latest results/reference/*; do \
		[ ! -f $$run/samples.csv ] || $(LAB) plot $$run || failed=1; done; [ ! "$$failed" ]
	@$(VENV)/python -m lab.claims

notebooks: $(BUILD)/.setup ## executes every notebook against results/ (or the reference run)
	@for notebook in notebooks/*.ipynb; do $(VENV)/python tools/execute_notebook.py $$notebook || exit 1; done

# ---- prove ----

static: build
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports

test-unit: build $(SIMULATORS) ## tests that need no network: units, protocol on the host library, simulator
	$(VENV)/pytest tests/unit tests/host tests/sim

test: static $(SIMULATORS) dpdk dpdk-sanitized ## proves the code: static checks, units, simulator, real networks
	@$(SUDO) tools/test.sh

test-all: static $(SIMULATORS) dpdk dpdk-sanitized ## every protocol case and the long searches (hours); goes on where it was interrupted
	@$(SUDO) tools/test_all.sh

verify: build ## models and core under Spin: contention for locks, cancel, data on two paths with betas
	@$(VENV)/python -m tests.model $(PROFILE)

fuzz: build $(BUILD)/.dpdk $(BUILD)/dpdk/counter_names.h ## libFuzzer on all that reads packets and messages, for TIME seconds (default 60), under sanitizers
	@$(VENV)/python -m tests.fuzz $(TIME) $(SET)

simulate: build $(BUILD)/sim ## a long search over seeds at low priority; goes on where it was (SET="--seeds 400000 --jobs 1")
	@nice -n 19 $(VENV)/python -m tests.sim.campaign $(SET)

replay: build $(BUILD)/libsim.so ## a seed of the simulator again, reduced if it fails, with a picture: make replay SEED=4711
	@$(VENV)/python -m tests.sim $(SEED) --picture || $(VENV)/python -m tests.sim $(SEED) --shrink --picture

mutants: build ## wrong changes to the core that the simulator must catch
	@$(VENV)/python -m tests.sim.mutants $(SEED)

clean: ## removes what the lab left in the kernel (its own objects only) and build outputs; never results
	@if [ -x $(VENV)/dysco-lab ]; then $(LAB) down; fi
	rm -rf $(BUILD)
