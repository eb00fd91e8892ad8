#!/bin/sh
# What the tests need beyond Go: PostgreSQL; grpcurl and a Chromium, which call
# the service as its users do; axe-core, which judges the pages; with the
# argument "race", a C compiler for the race detector.
set -eu
cd "$(dirname "$0")/.."
mkdir -p .tools/bin

grpcurl_version=v1.9.3

# A pinned version in a folder of its own: its dependencies are not ours. It is
# built while the packages below are fetched, and not optimised, which is quicker.
build_grpcurl() {
	[ -x .tools/bin/grpcurl-$grpcurl_version ] && return
	echo "muster: building grpcurl $grpcurl_version into .tools/bin" >&2
	GOBIN=$PWD/.tools/bin go install -ldflags='-s -w' -gcflags='github.com/...=-N -l' -gcflags='google.golang.org/...=-N -l' github.com/fullstorydev/grpcurl/cmd/grpcurl@$grpcurl_version >&2
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

[ "${1:-}" != race ] || compiler || from_apt 'a C compiler, for the race detector,' gcc libc6-dev
browser || from_apt 'Chromium, for the tests in a browser,' chromium

wait $grpcurl

# One file of the npm package axe-core, in a version whose content is known. npm
# fetches it where there is one; elsewhere curl or wget does, from the registry
# that npm would use, when one is configured (npm_config_registry, or registry=
# in an .npmrc); else npm is installed, which takes a while. Where nothing works
# the test fails and names this script.
axe_version=4.14.1
axe_sha256=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
axe=.tools/axe-core-$axe_version

registry() {
	configured=${npm_config_registry:-${NPM_CONFIG_REGISTRY:-}}
	for rc in .npmrc "${NPM_CONFIG_USERCONFIG:-$HOME/.npmrc}" /etc/npmrc; do
		[ -z "$configured" ] && [ -r "$rc" ] || continue
		configured=$(sed -n 's/^[[:space:]]*registry[[:space:]]*=[[:space:]]*//p' "$rc" | tail -n 1)
	done
	[ -n "$configured" ] && echo "${configured%/}"
}
download() { # URL FILE
	if command -v curl >/dev/null 2>&1; then
		curl -fsSL --retry 2 -o "$2" "$1"
	else
		wget -q -O "$2" "$1"
	fi
}
with_npm() { command -v npm >/dev/null 2>&1 && npm pack --silent --pack-destination "$1" "axe-core@$axe_version"; }
axe_core() { # FOLDER
	with_npm "$1" ||
		{ from=$(registry) && download "$from/axe-core/-/axe-core-$axe_version.tgz" "$1/axe-core-$axe_version.tgz"; } ||
		{ ! command -v npm >/dev/null 2>&1 && from_apt 'npm, for axe-core,' npm && with_npm "$1"; } || return 1
	tar -xzf "$1/axe-core-$axe_version.tgz" -C "$1" package/axe.min.js package/LICENSE || return 1
	sum=$(sha256sum "$1/package/axe.min.js" 2>/dev/null || shasum -a 256 "$1/package/axe.min.js") || return 1
	if [ "${sum%% *}" != "$axe_sha256" ]; then
		echo 'muster: what came as axe-core is something else' >&2
		return 1
	fi
	rm -rf "$axe" && mv "$1/package" "$axe"
}
if [ ! -r "$axe/axe.min.js" ]; then
	echo "muster: fetching axe-core $axe_version into .tools" >&2
	unpack=$(mktemp -d .tools/axe-XXXXXX)
	axe_core "$unpack" >&2 </dev/null || echo 'muster: axe-core is not to be had: install npm, or set npm_config_registry' >&2
	rm -rf "$unpack"
fi
