# Everything the project needs beside Rust, Python 3.11 or newer and make is installed into the
# project's folder: .venv (Python packages), target (Rust builds), .data (the demo's input).
# Stamp files under .venv let a second run start at once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

ifdef CI
export CARGO_TARGET_DIR ?= $(HOME)/.cache/rasker-target
endif

# The first interpreter that is new enough; `make PYTHON=/path/to/python` names another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(name) -c '$(NEW_ENOUGH)' 2>/dev/null && echo $(name))))

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
RUST := $(shell find crates Cargo.toml Cargo.lock .cargo \
	-name target -prune -o -type f -not -name '*.md' -print)

# Values that pip and the tests would otherwise take from the user's machine.
export PYTHONNOUSERSITE := 1

.PHONY: build demo test test-rust test-python typecheck bench chaos storm simulate fuzz tidy docs-check wheel clean

build: $(VENV)/.built

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found;" \
		"install it, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.development: requirements-dev.txt $(VENV)/.made
	@echo "installing requirements-dev.txt into $(VENV)"
	@$(PIP) install --requirement requirements-dev.txt
	@touch $@

$(VENV)/.bench: requirements-bench.txt $(VENV)/.development
	@echo "installing requirements-bench.txt into $(VENV)"
	@$(PIP) install --requirement requirements-bench.txt
	@touch $@

$(VENV)/.built: $(RUST) pyproject.toml $(VENV)/.development
	@echo "building rasker"
	@PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" \
		$(BIN)/maturin develop --quiet --release --manifest-path crates/python/Cargo.toml
	@touch $@

demo: build
	@$(BIN)/python examples/fetch_flights.py
	@$(BIN)/python examples/flights.py
	@echo; echo "The same flights in SQL:"; echo
	@$(BIN)/python examples/flights_sql.py

# The Python tests come last, so that their summary is the last line.
test: tidy test-rust typecheck test-python

test-rust:
	cargo test --quiet --release --workspace --exclude rasker-python

typecheck: build
	$(BIN)/mypy

test-python: build
	$(BIN)/python -m pytest

# SEEDS and FROM choose others: make simulate SEEDS=1000000 FROM=200000
SEEDS ?= 200000
FROM ?= 0

simulate:
	@cargo run --quiet --release -p rasker-simulation --bin simulate -- \
		--seeds $(SEEDS) --from $(FROM) --marks
	@cargo run --quiet --release -p rasker-simulation --bin simulate -- --mutants

# SECONDS for each target; coverage comes from the compiler itself, so that no tool is needed but
# a C++ compiler for libFuzzer. New inputs stay in target/fuzz/corpus, what failed beside it.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= decode mutate scheduler worker client
FUZZ_HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code --cfg fuzzing
FUZZ_FOLDER := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/fuzz

fuzz:
	@command -v c++ >/dev/null || { echo "a C++ compiler was not found; libFuzzer needs one:" \
		"install g++ or clang++" >&2; exit 1; }
	@cd fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_TARGET_DIR="$(FUZZ_FOLDER)" \
		cargo build --quiet --release --target $(FUZZ_HOST)
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p "$(FUZZ_FOLDER)/corpus/$$target"; \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		FUZZ_TARGET=$$target "$(FUZZ_FOLDER)/$(FUZZ_HOST)/release/fuzz" \
			"$(FUZZ_FOLDER)/corpus/$$target" "fuzz/corpus/$$target" \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=10 -verbosity=0 \
			-artifact_prefix="$(FUZZ_FOLDER)/$$target-"; \
	done
# Real processes are killed, frozen and cut off; CHAOS passes arguments on:
# make chaos CHAOS="--runs 10 --faults freeze,retire"; --library dask shows Dask beside it.
chaos: build
	@$(BIN)/python -m tests.chaos $(CHAOS)

# The long forms of what `make test` does for a few seconds; STORM_SECONDS for each of the first two.
STORM_SECONDS ?= 60

storm: build
	@$(BIN)/python -m tests.chaos.storm --seconds $(STORM_SECONDS)
	@$(BIN)/python -m tests.chaos.attack --seconds $(STORM_SECONDS)
	@$(BIN)/python -m tests.chaos.blame --runs 20
	@for job in streamed persisted; do $(BIN)/python tests/cluster/memory_jobs.py \
		$$job --limit 256MiB --runs 20 --cgroup; done
	@for job in spike damaged filled; do $(BIN)/python tests/cluster/memory_jobs.py $$job; done

tidy:
	@cargo xtask tidy

# BENCH passes arguments on: make bench BENCH="--rows map --peers rasker,dask --quick"
bench: build $(VENV)/.bench
	@$(BIN)/python -m bench $(BENCH)

docs-check: build
	@$(BIN)/python docs/check_examples.py README.md $(wildcard docs/*.md)
	@$(BIN)/python -m pytest --quiet --doctest-modules python/rasker
	@RUSTDOCFLAGS="-D warnings" cargo doc --quiet --release --no-deps --workspace \
		--exclude rasker-python

wheel: $(VENV)/.development
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin build --quiet --release --strip \
		--manifest-path crates/python/Cargo.toml --out dist
	@ls dist

clean:
	cargo clean --quiet
	rm -rf $(VENV) dist python/rasker/*.so
