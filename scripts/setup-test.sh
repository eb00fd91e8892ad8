#!/bin/sh
# What the tests need beyond Go: PostgreSQL, and a C compiler for the race
# detector. Prints the flag to test with: -race, or nothing where no compiler
# is to be had.
set -eu
cd "$(dirname "$0")/.."
mkdir -p .tools

scripts/setup-postgres.sh >&2

compiler() { command -v "$(go env CC)" >/dev/null 2>&1; }

if ! compiler && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo 'muster: installing a C compiler with apt-get, for the race detector' >&2
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -qq; apt-get install -y -qq --no-install-recommends gcc libc6-dev; } >.tools/apt.log 2>&1 ||
		tail -n 5 .tools/apt.log >&2
fi
if compiler; then
	echo -race
else
	echo 'muster: no C compiler, so the tests run without the race detector' >&2
fi
