# The commands of a contributor. Tools that this machine lacks (protoc, etcd) are first put below target/tools.

BACKEND ?= etcd
CHECK ?=
ARGS ?=

TOOLS := $(CURDIR)/target/tools
# The build script of etcd-client needs protoc; the tests need a real etcd of both releases.
export PROTOC := $(TOOLS)/bin/protoc
export ETCD_35 := $(TOOLS)/bin/etcd
export ETCD_34 := $(TOOLS)/etcd-3.4/etcd
export NGINX := $(TOOLS)/bin/nginx
export SIGNERS := $(TOOLS)/signers
export TOOLS

.DEFAULT_GOAL := help
.PHONY: help run test test-inspector test-attacks test-faults test-kills test-targets bench-targets soak fuzz scale bench instructions load fmt lint ci clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## a seeded etcd and the gateway, with commands to try (BACKEND=file: without etcd; CHECK=1: run these commands, compare, stop)
	@bash .ci/tools.sh $(if $(filter file,$(BACKEND)),proto,run)
	cargo build --profile quick --locked --bin gateway --features scenario
	@python3 examples/gateway/run.py --backend $(BACKEND) $(if $(CHECK),--check) $(ARGS)

test: ## every test, those against a real etcd 3.5 and 3.4 included (ARGS="-- name" narrows it)
	@bash .ci/tools.sh all
ifeq ($(ARGS),)
	cargo test --locked --all-features --lib --bin gateway --test allocations --test it
	cargo test --locked --all-features --test delivery
	cargo test --locked --all-features --test targets
# These tests wait for etcd more than they compute.
	cargo test --locked --all-features --test etcd --test soak -- --test-threads=8
	cargo test --locked --all-features --doc
	cargo build --locked --all-features --bin gateway --example fill_history
	python3 tests/inspector/run.py
else
	cargo test --locked --all-features $(ARGS)
endif

test-inspector: ## the inspector in Chromium, against a real gateway; screenshots in target/inspector (ARGS=walk narrows it)
	@bash .ci/tools.sh browser
	cargo build --locked --all-features --bin gateway --example fill_history
	python3 tests/inspector/run.py $(ARGS)

PERCENT ?= 100

test-faults: ## the fault tests against a real etcd that take minutes (PERCENT=20: a fifth of each)
	@bash .ci/tools.sh all
	FAULT_PERCENT=$(PERCENT) cargo test --locked --all-features --test etcd -- --ignored --skip scale:: $(ARGS)

test-kills: ROUNDS ?= 200

test-kills: ## kills the gateway under load, and looks for every acknowledged event (ROUNDS=200 SEED=7)
	@bash .ci/tools.sh build
	KILL_ROUNDS=$(ROUNDS) KILL_SEED=$(SEED) cargo test --locked --all-features --test delivery many_kills -- --ignored --nocapture

test-attacks: ## attacks on the gateway at their full size, with measured figures
	@bash .ci/tools.sh build
	cargo build --release --locked --features gateway --bin gateway
	GATEWAY=$(CURDIR)/target/release/gateway cargo test --locked --all-features --test it attacks:: -- --ignored --nocapture --test-threads=1

test-targets: ## every fault of the modules for brokers, against real servers (ARGS="rabbitmq": of one module)
	@bash .ci/tools.sh all
	@bash .ci/tools.sh activemq
	cargo test --locked --all-features --test targets -- --include-ignored --nocapture --test-threads=3 $(ARGS)

bench-targets: ## the rate of each module for brokers beside that of its bare client (ARGS="rabbitmq": of one module)
	@bash .ci/tools.sh all
	cargo test --profile bench --locked --all-features --test targets -- $(if $(ARGS),$(ARGS)::)speed:: --ignored --nocapture --test-threads=1

soak: SECONDS ?= 600
SEED ?=

soak: ## random faults of a real etcd; compares every served state with the written one (SECONDS=600 SEED=7)
	@bash .ci/tools.sh all
	SOAK_SECONDS=$(SECONDS) SOAK_SEED=$(SEED) cargo test --locked --all-features --test soak soak_for -- --ignored --nocapture

fuzz: SECONDS ?= 60

fuzz: ## libFuzzer for each parser, for SECONDS each (SECONDS=60 TARGET=json)
	@bash .ci/tools.sh build
	@bash .ci/tools.sh cxx
	bash tests/fuzz/run.sh $(SECONDS) $(TARGET)

scale: ## measures a million webhooks in etcd (SCALE_WEBHOOKS=100000)
	@bash .ci/tools.sh all
	cargo test --release --locked --all-features --test etcd scale:: -- --ignored --nocapture --test-threads=1 $(ARGS)

bench: ## the benchmarks (ARGS="--bench lookup" narrows them)
	@bash .ci/tools.sh build
	cargo bench --locked --features full $(ARGS)

UPDATE ?=

instructions: ## the instructions of a request, compared with benches/instructions.json (UPDATE=1 writes the file)
	@bash .ci/tools.sh build
	@python3 benches/instructions.py $(if $(UPDATE),--update)

load: SECONDS ?= 5
load: ROUNDS ?= 5
CONNECTIONS ?= 64

load: ## the gateway under load beside bare hyper and nginx: a table of ratios (ROUNDS=5 SECONDS=5 CONNECTIONS=64)
	@bash .ci/tools.sh build
# Each alone, so that the gateway is built as it is installed: without features of dependencies that only tests and examples use.
	cargo build --release --locked --features gateway --bin gateway
	cargo build --release --locked --example load_floor
	@python3 benches/load/load.py --rounds $(ROUNDS) --seconds $(SECONDS) --connections $(CONNECTIONS) $(ARGS)

fmt: ## formats the code
	cargo fmt

lint: ## clippy and rustdoc; a warning is an error
	@bash .ci/tools.sh build
	cargo clippy --locked --all-targets --all-features -- -D warnings
	cargo clippy --locked --bin gateway --features scenario -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features

ci: ## the gate: all of the above on a clean machine, and the compose scenario
	bash .ci/run

clean: ## removes target/ with the tools in it
	cargo clean
