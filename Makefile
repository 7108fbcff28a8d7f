# The commands of the README. Each sets up what it needs; all may be repeated, interrupted and repeated again.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(CURDIR)/target

.PHONY: help run test lint cluster soak bench bench-codecs bench-jitter bench-proxy bench-registrations clean
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build, start the embedded server, place a test call against it, keep serving
	@hack/run.sh

test: ## Run everything: unit, schema, chart, end-to-end with real SIP peers and a real cluster
	@hack/test.sh

lint: ## Formatting, clippy, shellcheck, generated files
	@hack/test.sh lint

cluster: ## A local two-node cluster with Ringwire installed and a demo carrier
	@hack/demo.sh

soak: ## The leak test with 10,000 calls
	@RINGWIRE_SOAK_CALLS=10000 hack/test.sh soak

bench: ## What a call with audio costs, beside what the kernel alone costs
	@hack/bench.sh

bench-codecs: ## Speech quality of real calls in each codec, beside the codecs alone
	@hack/bench-codecs.sh

bench-jitter: ## Delay and speech quality of the jitter buffer, beside fixed ones
	@hack/bench-jitter.sh

bench-registrations: ## What 5,000 registered trunks cost
	@hack/bench-registrations.sh
bench-proxy: ## Processor time of the registrar for a call, beside Kamailio's
	@hack/bench-proxy.sh

clean: ## Stop the local cluster and its carrier, remove what was built here
	@hack/cluster.sh down
	@cargo clean
