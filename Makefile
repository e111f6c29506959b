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

OBJECTS := $(BUILD)/dysco.bpf.o $(BUILD)/libdysco.so $(BUILD)/tcp_proxy $(BUILD)/bulk $(BUILD)/connect

SIM := dysco_ns/host/agent.c $(filter-out tests/sim/main.c,$(wildcard tests/sim/*.c))
SIM_FLAGS := $(filter-out -MMD -MP,$(C_FLAGS)) -Wno-unused-function -Idysco_ns/core -Idysco_ns/host -Itests/sim
SIM_HEADERS := $(wildcard dysco_ns/core/*.h dysco_ns/host/*.h tests/sim/*.h)
SIMULATORS := $(BUILD)/libsim.so $(BUILD)/sim $(BUILD)/sim-sanitized

.PHONY: help setup build doctor experiment-proxy-removal experiment-switch experiments test-all bench figures notebooks test test-unit verify fuzz mutants \
	static clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-26s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'PROFILE=quick (default) or paper; SET="key=value ..." changes settings (dysco-lab list shows them)'

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

$(BUILD)/bulk: $(wildcard lab/tools/bulk/*.c lab/tools/bulk/*.h) $(BUILD)/.setup
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) $(filter %.c,$^) -o $@ -lxxhash

$(BUILD)/connect: lab/tools/connect/connect.c $(BUILD)/.setup
	gcc $(filter-out -MMD -MP,$(C_FLAGS)) $< -o $@

$(BUILD)/libsim.so: $(SIM) $(SIM_HEADERS) $(BUILD)/.setup
	gcc $(SIM_FLAGS) -fPIC -shared $(SIM) -o $@

$(BUILD)/sim: $(SIM) tests/sim/main.c $(SIM_HEADERS) $(BUILD)/.setup
	gcc $(SIM_FLAGS) $(SIM) tests/sim/main.c -o $@

$(BUILD)/sim-sanitized: $(SIM) tests/sim/main.c $(SIM_HEADERS) $(BUILD)/.setup
	gcc $(SIM_FLAGS) -fsanitize=address,undefined -fno-omit-frame-pointer $(SIM) tests/sim/main.c -o $@

-include $(wildcard $(BUILD)/*.d)

# ---- use ----

doctor: $(BUILD)/.setup ## what this machine can and cannot run, and what to do about each
	@$(LAB) doctor

experiment-proxy-removal: build ## the main job: a proxy leaves live TCP sessions (paper Fig. 12-14)
	@$(LAB) run proxy-removal --profile $(PROFILE) $(addprefix --set ,$(SET))

experiment-switch: build ## goodput while middleboxes come and go under load of 100 sessions
	@$(LAB) run switch --profile $(PROFILE) $(addprefix --set ,$(SET))

experiments: experiment-proxy-removal experiment-switch ## all experiments

bench: build ## cost of the data path and of connect(), each beside its baseline in one run
	@$(LAB) run bench --profile $(PROFILE) $(addprefix --set ,$(SET))

figures: $(BUILD)/.setup ## draws every figure again from stored results; measures nothing
	@for run in results/*/latest results/reference/*; do \
		[ -f $$run/samples.csv ] && $(VENV)/dysco-lab plot $$run || true; done

notebooks: $(BUILD)/.setup ## executes every notebook against results/ (or the reference run)
	@for notebook in notebooks/*.ipynb; do $(VENV)/python tools/execute_notebook.py $$notebook || exit 1; done

# ---- prove ----

static: build
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports

test-unit: build $(SIMULATORS) ## tests that need no network: units, simulator
	$(VENV)/pytest tests/unit tests/sim

test: static $(SIMULATORS) ## proves the code: static checks, units, simulator, real networks
	$(SUDO) $(VENV)/pytest tests

test-all: static $(SIMULATORS) ## every protocol case and the long searches (hours); goes on where it was interrupted
	@$(SUDO) tools/test_all.sh

verify: build ## models and core under Spin: contention for locks, cancel, data on two paths with betas
	@$(VENV)/python -m tests.model $(PROFILE)

fuzz: build ## libFuzzer on the core for TIME seconds (default 60), under sanitizers
	@tests/fuzz/fuzz.sh $(TIME)

mutants: build ## wrong changes to the core that the simulator must catch
	@$(VENV)/python -m tests.sim.mutants $(SEED)

clean: ## removes what the lab left in the kernel (its own objects only) and build outputs; never results
	@if [ -x $(VENV)/dysco-lab ]; then $(LAB) down; fi
	rm -rf $(BUILD)
