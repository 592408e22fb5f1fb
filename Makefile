# Every target sets up what it needs: the virtual environment .venv, the Python packages, the Rust extension.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUST   := $(shell find rust/src -name '*.rs') rust/Cargo.toml rust/Cargo.lock

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench bench-quick bench-curves docs sim kill-maps fuzz fuzz-quick clean erlang

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(VENV)/.built  ## Make .venv and build the extension into it

$(VENV)/.packages: pyproject.toml
	@echo "making $(VENV) and installing the Python packages into it"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	    print('\n'.join(p['dependencies'] + p['optional-dependencies']['dev']))" > $(VENV)/requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	@touch $@

$(VENV)/.built: $(VENV)/.packages $(RUST)
	@echo "building the Rust extension (one to three minutes the first time)"
	@$(BIN)/maturin develop --release --locked > $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@touch $@

demo: setup  ## Three nodes on this machine, step by step (under 30 s once built)
	@$(BIN)/python examples/demo/demo.py

test: setup erlang  ## All tests: Python, Rust, real Erlang peers (most of them wait, so three files at a time: WORKERS=3)
	cargo test --release --locked --quiet --manifest-path rust/Cargo.toml
	$(BIN)/python -m pytest -n $(or $(WORKERS),3) --dist loadfile

erlang:  # Debian's Erlang and Elixir are the real peers of the tests; root can also cut wires, with ip and tc
	@{ command -v erl && command -v elixir && { command -v tc || [ "$$(id -u)" -ne 0 ]; }; } >/dev/null || ./.ci/install-erlang

lint: setup  ## ruff, mypy --strict, stubtest, rustfmt, clippy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest barrel_p2p._native --mypy-config-file pyproject.toml
	cargo fmt --check --manifest-path rust/Cargo.toml
	cargo clippy --locked --release --all-targets --manifest-path rust/Cargo.toml -- -D warnings
	cargo fmt --check --manifest-path rust/fuzz/Cargo.toml
	cargo clippy --locked --release --manifest-path rust/fuzz/Cargo.toml -- -D warnings

format: setup  ## Format Python and Rust
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format . ; cargo fmt --manifest-path rust/Cargo.toml ; cargo fmt --manifest-path rust/fuzz/Cargo.toml

sim: setup  ## Simulated clusters of the protocol machines, faults included: the standard scenarios, as a table
	$(BIN)/barrel sim --all

kill-maps: setup  ## Kill all nodes with SIGKILL fifty times in the middle of acknowledged puts (some ten minutes)
	BARREL_KILLS=50 $(BIN)/python -m pytest --timeout 1200 tests/cluster/test_maps_kept.py -k "survive_kill_9 or killed_in_mid_write"

fuzz: setup  ## Hostile bytes for some minutes: the property tests, then libFuzzer (FUZZ_SECONDS=300 for each target)
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest --timeout=0 tests/property/test_hostile_bytes.py \
	    tests/property/test_auth_properties.py tests/property/test_terms.py tests/property/test_dist_stream.py
	$(BIN)/python rust/fuzz/run.py --seconds $(or $(FUZZ_SECONDS),300)

fuzz-quick: setup  ## libFuzzer for some ten seconds a target, on the same inputs each time
	$(BIN)/python rust/fuzz/run.py --quick

docs: setup  ## Build the documentation into site/, warnings are errors
	$(BIN)/mkdocs build --quiet

bench: setup erlang $(VENV)/.rivals  ## The whole benchmark beside its rivals (some 12 minutes); writes benchmarks/results
	$(BIN)/python benchmarks/run.py

bench-quick: setup erlang  ## A short run beside the rivals that are installed, compared with the committed results as ratios
	$(BIN)/python benchmarks/run.py --quick

bench-curves: setup erlang $(VENV)/.rivals  ## How the figures move with more bytes, pairs, callers, peers (some 8 minutes)
	$(BIN)/python benchmarks/curves.py

$(VENV)/.rivals: pyproject.toml $(VENV)/.packages  # where they can't be had, the benchmark names them and goes on
	@echo "installing the rivals of the benchmark into $(VENV)"
	@$(BIN)/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	    print('\n'.join(p['optional-dependencies']['bench']))" > $(VENV)/rivals.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/rivals.txt \
	    && touch $@ || echo "not all rivals could be installed"

clean:  ## Remove what the other targets made
	rm -rf $(VENV) rust/target rust/fuzz/target rust/fuzz/corpus rust/fuzz/artifacts
