# Peanut: what a person types. Each target works as the first command on a fresh machine: it runs `setup` itself.
#
#   make demo     greenhouses and a car under a real gateway, on this machine   (DEMO_SECONDS=60 ends it by itself)
#   make test     everything that proves it works                          (TESTS=tests/broker for a part)
#   make test-long   what takes minutes: slow boards and slow lines
#   make check    linters, types, warnings
#   make conformance   each statement of MQTT 3.1.1 and 5.0, and its test  (STATEMENTS="5.0 4.8" for a part)
#   make field    what a node must do for years, and the test of each  (ROWS="control clock" for a part; WITHOUT=1)
#   make bench    speed beside other brokers, and the goals               (BENCH=--quick for the short one)
#   make bench-fleet   ten thousand nodes: commands, a restart, memory       (BENCH="--soak 3600" for an hour of it)
#   make fuzz     core, native loop and its TLS under fuzzers              (FUZZ_SECONDS=60)
#   make flash    a bare board to a node that is online           (NAME=peanut PORT=/dev/ttyUSB0 BOARD=esp32-devkitc)
#   make flash-all   a carton of boards, one after the other or side by side (NAMES=carton.csv BOARD=esp32-devkitc)
#   make virtual-board   a board that needs no hardware, to be flashed     (PORT=/tmp/peanut-board BOARD=esp32-devkitc)
#   make soak     kills the gateway over and over, attacks it for minutes  (SOAK_ROUNDS=300 ATTACK_SECONDS=60)
#   make setup    what the others do first: a virtual environment with all of it (OPENSSL=/opt/openssl for one of your own)
#   make clean    removes what was built, not the fleet home

PYTHON ?= python3
# Another OpenSSL than the system's for the native loop: the prefix that it was installed under. It is remembered; "system" goes back.
OPENSSL ?=
CHOSEN := $(if $(filter-out system,$(OPENSSL)),$(abspath $(OPENSSL)))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
FUZZ_SECONDS ?= 60
SOAK_ROUNDS ?= 300
ATTACK_SECONDS ?= 60
TESTS ?= tests
JOBS ?= 4 # on two cores: many tests wait for a node, a deadline, a disk
BENCH ?=
STATEMENTS ?=
ROWS ?=
WITHOUT ?=

REQUIREMENTS := requirements-dev.txt requirements-node.txt
PACKAGING := broker/pyproject.toml broker/setup.py provisioning/pyproject.toml
CORE := $(wildcard broker/core/*.c broker/core/*.h broker/native/*.c broker/native/*.h)
APP := $(shell find broker/app -path broker/app/node_modules -prune -o -path broker/app/tests -prune -o -type f -print) tools/app.py

.PHONY: setup demo test test-long check conformance field bench bench-fleet fuzz soak virtual-board flash flash-all clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^#   make/make/p' Makefile

setup: $(VENV)/core.stamp $(VENV)/app.stamp

# The tools a machine must have are looked for before anything is installed.
$(VENV)/pip.stamp: $(REQUIREMENTS)
	@$(PYTHON) tools/prerequisites.py 2>&1 || { command -v $(PYTHON) >/dev/null || \
		echo "make: $(PYTHON) is missing. Install it: sudo apt-get install python3 python3-venv python3-dev"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "setup 1/5: virtual environment in $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "setup 2/5: Python packages (about a minute the first time)"
	@$(PIP) install -r requirements-dev.txt
	@$(BIN)/python tools/prerequisites.py --node-wheel || $(PIP) install --only-binary :all: --require-hashes --no-deps -r requirements-node.txt
	@touch $@

# The prefix that OPENSSL has named; written when that is another than the last time, and then all of the core is built anew.
$(VENV)/openssl: $(VENV)/pip.stamp FORCE
	@[ -f $@ ] || : >$@
	@$(if $(OPENSSL),[ "$$(cat $@)" = "$(CHOSEN)" ] || echo "$(CHOSEN)" >$@)

FORCE:

$(VENV)/packages.stamp: $(VENV)/pip.stamp $(PACKAGING) | $(VENV)/openssl
	@echo "setup 3/5: peanutd and peanut, from this checkout"
	@PEANUT_OPENSSL="$$(cat $(VENV)/openssl)" $(PIP) install --no-build-isolation -e ./broker -e ./provisioning
	@touch $@

$(VENV)/core.stamp: $(VENV)/packages.stamp $(VENV)/openssl $(CORE)
	@echo "setup 4/5: C core"
	@cd broker && PEANUT_OPENSSL="$$(cat ../$(VENV)/openssl)" ../$(BIN)/python setup.py --quiet build_ext --inplace \
		$(if $(and $(filter $(VENV)/openssl,$?),$(wildcard $@)),--force)
	@touch $@

# Node.js of the machine where it is new enough, else one that pip brings.
$(VENV)/app.stamp: $(VENV)/pip.stamp requirements-app.txt $(APP)
	@echo "setup 5/5: the phone app"
	@$(BIN)/python -m tools.app --has-node || $(PIP) install --only-binary :all: -r requirements-app.txt
	@$(BIN)/python -m tools.app build
	@touch $@

demo: setup
	@$(BIN)/python -m tools.demo

# Hundreds of programs are started: each compiles its modules once, whatever the environment says of bytecode.
# Files begin in the order of tests/order.py, and not those with the most tests first.
test test-long: export PYTHONDONTWRITEBYTECODE :=
test: setup
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

test-long: setup
	@$(BIN)/python -m pytest $$(find tests -name 'long_*.py' | sort)

check: setup
	@$(BIN)/python -m tools.check

conformance: setup
	@$(BIN)/python -m tools.conformance $(STATEMENTS)

# WITHOUT=1: each row without its mechanism, in a copy of this project; its tests must fail there.
field: setup
	@$(BIN)/python -m tools.field $(if $(WITHOUT),--without) $(ROWS)

bench: setup
	@$(BIN)/python -m tools.bench $(BENCH)

bench-fleet: setup
	@$(BIN)/python -m tools.bench.fleet $(BENCH)

fuzz: setup
	@$(MAKE) --no-print-directory -C tests/fuzz run SECONDS=$(FUZZ_SECONDS) PYTHON=$(abspath $(BIN)/python)

soak: setup
	@SOAK_ROUNDS=$(SOAK_ROUNDS) $(BIN)/python -m pytest -q tests/broker/durability/test_kill.py
	@ATTACK_SECONDS=$(ATTACK_SECONDS) $(BIN)/python -m pytest -q --timeout 900 tests/broker/attack/*_attacks.py

virtual-board: setup
	@$(BIN)/python -m tools.virtual_board --board $(or $(BOARD),esp32-devkitc) --link $(or $(PORT),/tmp/peanut-board)

# What is not given is asked for. FLASH="--patience 3 --manual-reset" for anything else (peanut flash --help).
flash: setup
	@$(BIN)/peanut flash $(NAME) $(if $(PORT),--port $(PORT)) $(if $(BOARD),--board $(BOARD)) $(if $(SIMULATE),--simulate) \
		$(if $(IMAGE),--image "$(IMAGE)") $(if $(SHA256),--sha256 $(SHA256)) $(if $(FACTORY),--factory) $(if $(DRY_RUN),--dry-run) $(FLASH)

# Names from a CSV (name, board, kind), as many boards at once as there are ports: make flash-all NAMES=carton.csv PORTS="…"
flash-all: setup
	@$(BIN)/peanut flash --all $(PORTS) --names $(or $(NAMES),carton.csv) $(if $(BOARD),--board $(BOARD)) \
		$(if $(SIMULATE),--simulate) $(if $(IMAGE),--image "$(IMAGE)") $(if $(SHA256),--sha256 $(SHA256)) \
		$(if $(FACTORY),--factory) $(if $(DRY_RUN),--dry-run) $(FLASH)

clean:
	rm -rf build $(VENV) broker/build broker/peanutd/*.so broker/peanutd/static broker/app/node_modules broker/*.egg-info provisioning/build provisioning/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
