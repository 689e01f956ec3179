# Mitosis: the commands of the house. `make help` lists them.
#
# `make test` is a list of steps, each of them a target of its own; what fails names itself and can
# be run again alone. A new step is a target that is added to TEST_STEPS.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Absolute, as maturin and pytest run in other directories.
VENV := $(abspath $(TARGET))/venv
WHEELS := $(abspath $(TARGET))/wheels
PY := $(VENV)/bin/python
HOSTS_BIN := $(abspath $(TARGET))/release/mitosis-hosts
# Made by tests/setup.sh where the machine has no Node that is new enough.
export PATH := $(abspath $(TARGET))/node/bin:$(PATH)
export CARGO_TERM_COLOR ?= auto
# For maturin and build scripts: the interpreter that the wheel is for.
export PYO3_PYTHON := $(PY)

TEST_STEPS := test-fmt test-clippy test-rust test-fuzz test-doc \
    test-header test-package test-wheel test-python test-node test-examples test-install test-fn test-runtimes test-rxe test-uml test-bench
# What host B of the demo has: the programs of Mitosis, and no Python.
DEMO_FILES := $(abspath $(TARGET))/release/mitosis
# make demo RUNTIME=node tells the story of Node.
RUNTIME ?= python
DEMO ?= examples/demo/$(if $(filter node,$(RUNTIME)),node_run.py,run.py)
BENCH ?= benches/run.py
# Where `make install` puts things; DESTDIR, for packagers, stands before that and in no file.
PREFIX ?= /usr/local
DESTDIR ?=
# make test-chaos SECONDS=60 SEED=7; without a seed another one each time.
SEED ?=
# make bench ONLY=name runs one measurement, make fuzz ONLY=name one target.
ONLY ?=
# make fuzz SECONDS=60 takes a minute for each target.
SECONDS ?=

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort |
	    sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

.PHONY: demo
demo: setup ## a warm CPython (RUNTIME=node: Node) forks onto another host; writes target/demo.json
	$(CARGO) build --release --workspace
	$(MAKE) --no-print-directory install-python install-node
	$(HOSTS_BIN) up $(addprefix --file ,$(DEMO_FILES)) -- $(PY) $(DEMO)

.PHONY: test
test: setup ## all that CI runs
	@for step in $(TEST_STEPS); do
	    echo "=== $$step"
	    $(MAKE) --no-print-directory "$$step" || {
	        echo "make test: $$step failed; 'make $$step' runs it alone" >&2
	        exit 1
	    }
	done

.PHONY: bench
bench: setup ## every number in the README; writes target/bench.json (ONLY=name: one)
	$(CARGO) build --release --workspace
	$(MAKE) --no-print-directory install-python install-node
	# Alone, as install-node says.
	$(CARGO) build --release --quiet --package mitosis-preload
	$(PY) $(BENCH) $(if $(ONLY),--only $(ONLY))

.PHONY: install-built
install-built:
	$(CARGO) build --release --quiet --package mitosis-agent --package mitosis-capi
	# Alone: together with the agent, the core would be built with all that the agent needs.
	$(CARGO) build --release --quiet --package mitosis-preload

.PHONY: install
install: install-built ## the command, libmitosis, headers, pkg-config, systemd unit, docs below PREFIX=/usr/local
	packaging/install.sh install "$(TARGET)" "$(PREFIX)" "$(DESTDIR)"

.PHONY: uninstall
uninstall: ## takes away what install put there
	packaging/install.sh uninstall "$(TARGET)" "$(PREFIX)" "$(DESTDIR)"

.PHONY: lint
lint: setup test-fmt test-clippy test-doc ## what a compiler can tell without running anything

.PHONY: fmt
fmt: ## formats the Rust code
	$(CARGO) fmt --all

.PHONY: clean
clean: ## removes all that was built
	$(CARGO) clean
	rm -rf $(TARGET)

.PHONY: setup
setup:
	@PYTHON="$(PYTHON)" bash tests/setup.sh

# The wheel carries the agent, for programs that fork where nobody runs one.
.PHONY: install-python
install-python: setup
	@rm -rf $(WHEELS) python/lib/mitosis/bin
	$(CARGO) build --release --quiet --package mitosis-agent
	install -D --mode 755 $(TARGET)/release/mitosis python/lib/mitosis/bin/mitosis
	cd python
	$(VENV)/bin/maturin build --release --quiet --interpreter $(PY) --out $(WHEELS)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
	    $(WHEELS)/*.whl

# The package carries the native half and the agent, as the wheel does.
.PHONY: install-node
install-node: setup
	$(CARGO) build --release --quiet --package mitosis-agent
	# Alone: together with the agent, the core would be built with all that the agent needs.
	$(CARGO) build --release --quiet --package mitosis-node
	install -D --mode 755 $(TARGET)/release/mitosis runtimes/node/bin/mitosis
	install -D --mode 755 $(TARGET)/release/libmitosis_node.so runtimes/node/bin/mitosis_node.node
	install --mode 644 LICENSE runtimes/node/LICENSE

.PHONY: test-fmt
test-fmt:
	$(CARGO) fmt --all --check
	rustfmt --edition 2024 --check core/restorer/main.rs

.PHONY: test-clippy
test-clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --workspace --test guests --test uml --test verbs_guest --test dc_guest --test chaos -- -D warnings

# The closing lines of cargo test are what CI reads.
.PHONY: test-rust
test-rust:
	$(CARGO) test --workspace

# The programs that tests run elsewhere. By test-rust's own command: other packages together have other
# features, and most would be built once more.
.PHONY: programs
programs:
	$(CARGO) test --workspace --no-run --quiet

# A minute on each target, two at a time: five minutes, and the build of what is fuzzed.
.PHONY: test-fuzz
test-fuzz: setup
	FUZZ_SEED=1 tests/fuzz/run.sh 60

.PHONY: fuzz
fuzz: setup ## parsers of strangers' bytes, SECONDS=3600 each (ONLY=name: one)
	tests/fuzz/run.sh $(or $(SECONDS),3600) $(ONLY)

.PHONY: test-doc
test-doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

# The header that is checked in is the one that the code makes.
.PHONY: test-header
test-header:
	bash capi/check-header.sh

# The crates that are to be published can be packed: what they name is in them, or on crates.io. What is packed is built
# by `cargo package` without --no-verify, which takes four minutes.
.PHONY: test-package
test-package:
	$(CARGO) package --quiet --no-verify --allow-dirty --package mitosis --package mitosis-agent
	for crate in mitosis mitosis-agent; do
	    packed=$$(tar -tzf $(TARGET)/package/$$crate-$$(sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -1).crate)
	    grep -q '/Cargo.toml$$' <<<"$$packed"
	    grep -q '/src/' <<<"$$packed"
	done

.PHONY: test-wheel
test-wheel: install-python
	$(PY) -c 'import mitosis; print("import mitosis:", mitosis.__version__)'

.PHONY: test-python
test-python:
	$(PY) -m pytest python

# The interpreter's own tests in children, all of them: some 20 minutes. test-python runs those that are quick.
.PHONY: test-python-regrtest
test-python-regrtest: install-python ## CPython's own tests, in children
	$(PY) python/tests/regrtest/compare.py

.PHONY: test-node
test-node: install-node
	$(CARGO) build --release --quiet --package mitosis-preload
	bash runtimes/node/suite/files.sh
	cd runtimes/node
	npm run --silent types
	node --test test/*.test.js

.PHONY: test-examples
test-examples: install-python install-node
	bash examples/run-all.sh

.PHONY: test-install
test-install: setup install-built
	packaging/test.sh "$(TARGET)"

# A stand-in of the Fn agent, and functions of its FDKs whose containers are forked.
.PHONY: test-fn
test-fn: install-python install-node programs
	$(PY) -m pytest tests/fn

# Runtimes and servers that know nothing of Mitosis, under `mitosis run`.
.PHONY: test-runtimes
test-runtimes: install-python programs
	# Alone: together with the agent, the core would be built with all that the agent needs.
	$(CARGO) build --release --quiet --package mitosis-preload
	$(PY) -m pytest tests/runtimes

# Parts of two hosts are killed, stopped and cut by chance, under load. What it prints runs the same once more.
.PHONY: test-chaos
test-chaos: programs ## kills, stops and cuts by chance (SECONDS=300 SEED=)
	MITOSIS_TEST_CHAOS_SECONDS=$(or $(SECONDS),300) MITOSIS_TEST_CHAOS_SEED=$(SEED) \
	    $(CARGO) test --package mitosis-agent --test chaos

# A test's program has a place of its own here: cargo's has a hash in its name.
# Two commands, as what fails in front of && ends no recipe.
define place
path=$$($(CARGO) test --workspace --no-run $(1) --test $(2) --message-format json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*$(2)-[^"]*\)".*/\1/p')
install -m 755 "$$path" $(TARGET)/$(3)/$(2)
endef

# Where no RDMA card is it says so, and that is no failure: `make test` is not to depend on one.
.PHONY: test-hw
test-hw: ## what an RDMA card does with READs that can and cannot be; skipped where there is none
	@$(call place,--release,verbs_guest,release)
	$(TARGET)/release/verbs_guest here

# Between two emulated machines with Soft-RoCE; see tests/rxe/README.md. One test at a time, as an
# emulator takes a whole CPU.
.PHONY: test-rxe
test-rxe: install-python programs
	@$(call place,,verbs_guest,debug)
	$(call place,,dc_guest,debug)
	$(CARGO) test --workspace --test guests -- --test-threads 1

# Between up to eight kernels that are processes, with Soft-RoCE and Soft-iWARP. Their kernel is built
# where no clone on this machine has built it yet: some five minutes, once.
.PHONY: test-uml
test-uml: setup programs
	bash tests/rxe/image/uml.sh $(TARGET)/rxe >/dev/null
	$(CARGO) test --workspace --test uml -- --test-threads 1

# Two rounds of what can do with two: that benches run, not how fast anything is. Those between emulated
# machines share one boot.
.PHONY: test-bench
test-bench: install-python install-node programs
	$(PY) $(BENCH) --smoke --only tcp_read_4k_vs_libfabric --only stop_10_threads --only preload_start \
	    --only node_first_answer_ms --only fn_first_call_python_ms --only fn_first_call_node_ms \
	    --only rc_read_4k_vs_perftest --only rc_fork_vs_reads
