# Everything that is done often, in one word each. `make` alone lists it.

CARGO   ?= cargo
SEEDS   ?= 500
CLUSTERS ?= 400
MINUTES ?= 3
TARGET  := $(or $(CARGO_TARGET_DIR),target)
XTASK   := $(TARGET)/debug/xtask
KAPELL  := $(TARGET)/debug/kapell
RELEASE := $(TARGET)/release/kapell
SIM     ?= $(CARGO) run --quiet -p kapell-sim --
BENCH   ?= $(CARGO) run --quiet --release -p kapell-bench
# Without nextest the tests run one program after another: slower, but the same tests.
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

.NOTPARALLEL:
.PHONY: help quickstart test check bench bench-pg sim chaos cluster docs format lint build tidy unit examples api deploy \
        needs-build needs-python promtool postgresql

help:
	@echo 'make quickstart      build Kapell, run a year of flights through it, show the timeline'
	@echo 'make check           what each commit must pass, in under a minute once built'
	@echo 'make test            everything: checks, tests, simulation, examples, the API'
	@echo 'make sim SEEDS=n     the simulation alone, over n seeds of one node and CLUSTERS=n of several'
	@echo 'make chaos MINUTES=n a cluster of real processes while everything fails, for n minutes'
	@echo 'make cluster         three nodes and two workers run the flights; some are killed'
	@echo 'make bench           the benchmarks'
	@echo 'make bench-pg        those over a PostgreSQL server of this machine'
	@echo 'make deploy          what is in deploy/: the Helm chart, alerts, the dashboard, the Compose file'
	@echo 'make docs            write the generated pages of docs/'

quickstart: needs-build needs-python
	$(CARGO) build --release -p kapell-cli
	$(RELEASE) run examples/flights/flights.yaml
	$(RELEASE) timeline

test: needs-build needs-python promtool postgresql format lint build tidy
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --workspace
else
	$(CARGO) test --quiet --workspace
endif
	$(MAKE) sim
	$(MAKE) chaos
	$(MAKE) examples
	$(MAKE) api
	$(MAKE) deploy

check: format lint build tidy unit

# --- the parts -------------------------------------------------------------------------------------------

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings

# All targets at once: built one by one, the same dependency would be built again with other features.
build:
	$(CARGO) build --quiet --workspace --all-targets

tidy: build
	$(XTASK) tidy

unit: build
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --workspace --lib --bins --test scenarios
else
	$(CARGO) test --quiet --workspace --lib --bins --test scenarios
endif

sim: needs-build
	$(SIM) --seeds $(SEEDS)
	$(SIM) --cluster --seeds $(CLUSTERS)

examples: build needs-python
	$(XTASK) examples --bin $(KAPELL)

api: build needs-python
	$(XTASK) api --bin $(KAPELL)

# Needs the right to make networks and mounts (root), and says so where that is missing.
chaos: needs-build postgresql
	MINUTES=$(MINUTES) $(CARGO) test --quiet --workspace --test chaos_cluster -- --nocapture

cluster: needs-build needs-python postgresql
	$(CARGO) build --release -p kapell-cli
	$(CARGO) build --quiet -p kapell-xtask
	$(XTASK) cluster --bin $(RELEASE)

deploy: build needs-python
	$(XTASK) deploy --bin $(KAPELL)

bench: needs-build
	$(CARGO) build --release -p kapell-cli
	$(BENCH)

bench-pg: needs-build postgresql
	$(BENCH) -- --only pg

docs: build
	$(XTASK) reference

# Prometheus' own checker of metrics: installed where that is possible, and else its test says that it is missing.
promtool:
	@if ! command -v promtool >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus; } >/dev/null 2>&1 \
	  || echo 'promtool is missing and could not be installed: its test is skipped' >&2; \
	fi

# The server that tests of the PostgreSQL store start for themselves; without it they say that they are skipped.
postgresql:
	@if ! ls /usr/lib/postgresql/*/bin/initdb /usr/local/bin/initdb /usr/bin/initdb >/dev/null 2>&1 \
	    && command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql; } >/dev/null 2>&1 \
	  || echo 'PostgreSQL is missing and could not be installed: its tests are skipped' >&2; \
	fi

# --- what must be installed ------------------------------------------------------------------------------

needs-build:
	@missing=; for tool in $(firstword $(CARGO)) cc; do command -v $$tool >/dev/null 2>&1 || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then \
	  echo "missing:$$missing. Kapell is built by Rust 1.95 or later (cargo, by rustup) and a C compiler (cc, by gcc or clang)." >&2; \
	  exit 1; \
	fi

needs-python:
	@if ! python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1; then \
	  echo "missing: python3, 3.9 or later, with venv (on Debian and Ubuntu: the packages python3 and python3-venv)." >&2; \
	  exit 1; \
	fi
