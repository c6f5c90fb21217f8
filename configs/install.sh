#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# install.sh COMMAND [LIST]: installs the Debian packages that `make COMMAND` needs, by the list
# (default packages.txt), and says which. Prints nothing when none is missing.
set -eu

command=$1
list=${2:-$(dirname "$0")/packages.txt}

if [ -n "${CLEAVE_NO_INSTALL:-}" ]; then
    exit 0
fi
if ! command -v dpkg-query >/dev/null; then
    echo "Not a Debian system: see $list for what must be installed." >&2
    exit 0
fi

# shellcheck disable=SC2016  # the dollars are dpkg's and awk's
needed=$(awk -v want="$command" '
    { sub(/#.*/, ""); for (i = 2; i <= NF; i++) if ($i == want) print $1 }' "$list")
# shellcheck disable=SC2016,SC2086
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $needed 2>/dev/null |
    sed -n 's/^installed //p' || :)
missing=
for package in $needed; do
    if ! printf '%s\n' "$installed" | grep -qx "$package"; then
        missing="$missing $package"
    fi
done
if [ -z "$missing" ]; then
    exit 0
fi

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "make $command needs these packages; install them, or run it as root:$missing" >&2
    echo "(CLEAVE_NO_INSTALL=1 goes on without them.)" >&2
    exit 1
fi
echo "Installing what make $command misses:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt="apt-get -q -y -o DPkg::Lock::Timeout=300"
# shellcheck disable=SC2086  # both are lists of words
if ! { $apt update && $apt install --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
