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

.PHONY: test
test: ## run all tests, set-up included
	@scripts/setup-test.sh && set -x && \
	go test -vet=off -p 2 -count=1 -timeout 10m ./...

# Where goroutines share what they hold. The detector makes a test three to ten
# times dearer, browsers and hashes most of all, so it runs where it can find
# something; RACE=./... runs it everywhere.
RACE ?= ./eventstore ./projections ./consumers ./importer ./handlers ./handlers/access ./handlers/signin

.PHONY: test/race
test/race: ## vet everything, and run the tests of RACE with the race detector
	@scripts/setup-test.sh race && set -x && \
	go vet -race ./... && \
	go test -race -vet=off -p 2 -count=1 -timeout 10m $(RACE)

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
	@scripts/setup-test.sh
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
