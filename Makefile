# Everything a contributor runs. Tools that this machine lacks (protoc, etcd) are put under target/tools first.

BACKEND ?= etcd
CHECK ?=
ARGS ?=

TOOLS := $(CURDIR)/target/tools
# etcd-client's build script wants protoc; the tests want a real etcd of both lines.
export PROTOC := $(TOOLS)/bin/protoc
export ETCD_35 := $(TOOLS)/bin/etcd
export ETCD_34 := $(TOOLS)/etcd-3.4/etcd

.DEFAULT_GOAL := help
.PHONY: help run test bench fmt lint ci clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## the scenario here: a seeded etcd and the gateway (BACKEND=file: without etcd; CHECK=1: test it and stop)
	@bash .ci/tools.sh $(if $(filter file,$(BACKEND)),build,run)
	cargo build --release --locked --example gateway --features gateway
	@python3 examples/gateway/run.py --backend $(BACKEND) $(if $(CHECK),--check) $(ARGS)

test: ## every test, those against a real etcd 3.5 and 3.4 included (ARGS="-- name" narrows it)
	@bash .ci/tools.sh all
	cargo test --locked --all-features $(ARGS)

bench: ## the benchmarks (ARGS="--bench lookup" narrows them)
	@bash .ci/tools.sh build
	cargo bench --locked --all-features $(ARGS)

fmt: ## formats the code
	cargo fmt

lint: ## clippy and rustdoc, a warning is an error
	@bash .ci/tools.sh build
	cargo clippy --locked --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features

ci: ## the gate: all of the above on a clean machine, and the compose scenario
	bash .ci/run

clean: ## removes target/, the tools in it too
	cargo clean
