#!/bin/sh
# What the tests need beyond Go: PostgreSQL; a C compiler for the race
# detector; grpcurl and a Chromium, which call the service as its users do.
# Prints the flag to test with: -race, or nothing where no compiler is to be
# had.
set -eu
cd "$(dirname "$0")/.."
mkdir -p .tools/bin

grpcurl_version=v1.9.3

# A pinned version in a folder of its own: its dependencies are not ours. It is
# built while the packages below are fetched.
build_grpcurl() {
	[ -x .tools/bin/grpcurl-$grpcurl_version ] && return
	echo "muster: building grpcurl $grpcurl_version into .tools/bin" >&2
	GOBIN=$PWD/.tools/bin go install -ldflags='-s -w' github.com/fullstorydev/grpcurl/cmd/grpcurl@$grpcurl_version >&2
	mv .tools/bin/grpcurl .tools/bin/grpcurl-$grpcurl_version
}
build_grpcurl &
grpcurl=$!

scripts/setup-postgres.sh >&2

# from_apt WHY PACKAGE…: installs packages, where that is possible.
from_apt() {
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
	echo "muster: installing $1 with apt-get" >&2
	shift
	{
		DEBIAN_FRONTEND=noninteractive apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
	} >.tools/apt.log 2>&1 </dev/null || tail -n 5 .tools/apt.log >&2
}

compiler() { command -v "$(go env CC)" >/dev/null 2>&1; }
browser() {
	for name in chromium chromium-browser google-chrome chrome; do
		command -v $name >/dev/null 2>&1 && return 0
	done
	return 1
}

compiler || from_apt 'a C compiler, for the race detector,' gcc libc6-dev
browser || from_apt 'Chromium, for the tests in a browser,' chromium

wait $grpcurl

if compiler; then
	echo -race
else
	echo 'muster: no C compiler, so the tests run without the race detector' >&2
fi
