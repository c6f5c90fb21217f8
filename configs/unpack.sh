#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# unpack.sh PACKAGE OUT: unpacks a Debian package of packages.txt that is needed as files below OUT,
# without installing it, and writes its name and version to OUT.version. A package that stands for the
# newest kernel is replaced by that kernel's. Does nothing when OUT.version is there.
set -eu

package=$1
out=$2
mkdir -p "$(dirname "$out")"
exec 9>"$(dirname "$out")/lock" # one at a time: apt's lists have one writer
flock 9
if [ -s "$out.version" ]; then
    exit 0
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM # once: a group gets it twice

# The package itself, or the kernel that it depends on.
resolve() {
    kernel=$(apt-cache show --no-all-versions "$package" |
        sed -n 's/^Depends: \(linux-image-[0-9][^ ,]*\).*/\1/p')
    real=${kernel:-$package}
}

# apt's user cannot write to the folder: as root, root fetches.
download() {
    resolve
    (cd "$folder" && apt-get -q -o APT::Sandbox::User=root download "$real")
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "Not a Debian system: unpack the files of its package $package below $out, then run" >&2
    echo "  echo by hand >$out.version" >&2
    exit 1
fi
if ! download >"$folder/log" 2>&1; then
    # The lists may be missing, or name a version that is gone.
    if [ "$(id -u)" != 0 ] || ! { apt-get -q update && download; } >>"$folder/log" 2>&1; then
        cat "$folder/log" >&2
        echo "The package $package cannot be fetched; without root, run \"apt-get update\" first." >&2
        exit 1
    fi
fi
rm -rf "$out" "$out.new"
dpkg-deb -x "$folder/"*.deb "$out.new"
mv "$out.new" "$out"
# shellcheck disable=SC2016  # the dollars are dpkg's
version=$(dpkg-deb -W --showformat='${Package} ${Version}\n' "$folder/"*.deb)
echo "$version" >"$out.version"
echo "Unpacked $version"
