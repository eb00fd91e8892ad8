# Muster's commands. `make` alone lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := .tools/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

.PHONY: help
help: ## list these commands
	@awk -F ':.*## ' '/^[a-z\/-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/muster
	go build -o bin/muster ./cmd/muster

# With DATABASE_URL the service needs no PostgreSQL of its own. The shell gives
# way to muster, so that signals reach it.
.PHONY: run
run: build ## run the service, set-up included; with DATABASE_URL on that PostgreSQL
	@if [ -z "$${DATABASE_URL:-}" ]; then scripts/setup-postgres.sh; fi && exec bin/muster serve

# Rules, hashes and readers of files start no goroutines, and hashing is ten
# times dearer under the race detector: they are tested without it.
PURE := ./domain ./domain/password ./importer/source

# Vetted once and with the tests' own flag, so that nothing is compiled twice.
# CLUSTER_ARGS='-v' prints what the processes print; -dir, -port and -nats-port
# say where everything is. With DATABASE_URL it needs no PostgreSQL of its own.
.PHONY: cluster
cluster: build ## run three JetStream nodes and two instances on one PostgreSQL, to kill any one of
	@if [ -z "$${DATABASE_URL:-}" ]; then scripts/setup-postgres.sh; fi && \
	go build -o bin/cluster ./internal/cluster/run && exec bin/cluster $(CLUSTER_ARGS)

.PHONY: test
test: ## run all tests, set-up included
	@race=$$(scripts/setup-test.sh) && set -x && \
	go vet $$race ./... && \
	go test -vet=off -p 2 -count=1 -timeout 10m $(PURE) && \
	go test -vet=off $$race -p 2 -count=1 -timeout 10m $$(go list ./... | grep -vE '/(domain|domain/password|importer/source)$$')

# DURATION is how long the log is tried; a mutant, at most. SEED repeats a plan.
DURATION ?= 60s
SEED ?= 0

.PHONY: test/hostile
test/hostile: ## try to break the log for DURATION (60s): kills, cuts, pauses, strangers
	@scripts/setup-postgres.sh
	go run ./internal/hostile/run -duration $(DURATION) -seed $(SEED)

.PHONY: test/mutants
test/mutants: ## show that test/hostile catches wrong logs, each within DURATION
	@scripts/setup-postgres.sh
	go run -tags mutant ./internal/hostile/run -duration $(DURATION) -seed $(SEED) -round 3s -logs mutants

# EVENTS is about how many are imported, PAUSE how long a disturbance waits for
# the next.
EVENTS ?= 100000
PAUSE ?= 1s

.PHONY: test/chaos
test/chaos: build ## kill consumers, instances, JetStream nodes and the mail server while EVENTS are imported
	@if [ -z "$${DATABASE_URL:-}" ]; then scripts/setup-postgres.sh; fi && \
	go build -o bin/chaos ./internal/chaos/run && bin/chaos -events $(EVENTS) -pause $(PAUSE) -seed $(SEED)

.PHONY: screenshots
screenshots: ## write a picture of every page, light and dark, into docs/screenshots/
	@scripts/setup-test.sh >/dev/null
	MUSTER_SCREENSHOTS=$(CURDIR)/docs/screenshots go test -count=1 -run '^TestScreenshots$$' ./handlers/pages ./handlers/console

.PHONY: lint
lint: $(GOLANGCI_LINT) ## look for what the compiler lets pass
	$(GOLANGCI_LINT) run ./...

# A pinned version in a folder of its own: its dependencies are not ours.
$(GOLANGCI_LINT):
	mkdir -p .tools/bin
	GOBIN=$(CURDIR)/.tools/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .tools/bin/golangci-lint $@

.PHONY: generate
generate: ## write the Go code of the wire messages anew from proto/
	go run ./internal/protogen

.PHONY: bench
bench: ## measure, beside limits and peers, what the README quotes; ARGS='-only log'
	@if [ -z "$${DATABASE_URL:-}" ]; then scripts/setup-postgres.sh; fi && cd internal/bench && go run . $(ARGS)
