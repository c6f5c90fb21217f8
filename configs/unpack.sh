#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# unpack.sh PACKAGE[=VERSION] OUT [PATTERN]: unpacks a Debian package of packages.txt that is needed as
# files below OUT, those like PATTERN or all, without installing it, and writes its name and version to
# OUT.version; with it those of its group, beside OUT, for apt takes longer to start than to fetch one.
# A package that stands for the newest kernel is replaced by that kernel's. Does nothing when
# OUT.version is there.
set -eu

package=$1
out=$2
pattern=${3:-*}
beside=$(dirname "$out")
mkdir -p "$beside"
exec 9>"$beside/lock" # one at a time: apt's lists have one writer
flock 9
if [ -s "$out.version" ]; then
    exit 0
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'trap "" HUP INT TERM; exit 1' HUP INT TERM # once: a group gets it twice

# The packages of its group that are not there yet: "NAME unpack GROUP".
group=$(awk -v name="$package" '
    $2 == "unpack" && $3 !~ /^#/ { group[$1] = $3 }
    END { for (other in group) if (group[name] != "" && group[other] == group[name]) print other }
' "$(dirname "$0")/packages.txt" | sort)
wanted=
for name in ${group:-$package}; do
    [ "$name" != "$package" ] && [ -s "$beside/$name.version" ] || wanted="$wanted $name"
done

# What is fetched for a package: itself, or the kernel that it depends on.
resolve() {
    kernel=
    case $1 in
    linux-image-*)
        kernel=$(apt-cache show --no-all-versions "$1" |
            sed -n 's/^Depends: \(linux-image-[0-9][^ ,]*\).*/\1/p')
        ;;
    esac
    echo "${kernel:-$1}"
}

# apt's user cannot write to the folder: as root, root fetches.
download() {
    : >"$folder/names"
    for name in $wanted; do
        resolve "$name" >>"$folder/names"
    done
    # shellcheck disable=SC2046  # words are meant
    (cd "$folder" && apt-get -q -o APT::Sandbox::User=root download $(cat names))
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
for name in $wanted; do
    to=$beside/$name
    [ "$name" != "$package" ] || to=$out
    file=$(resolve "$name")
    file=$(echo "$folder/${file%%=*}"_*.deb)
    rm -rf "$to" "$to.new"
    mkdir "$to.new"
    dpkg-deb --fsys-tarfile "$file" | tar -x -C "$to.new" --wildcards "./$pattern"
    mv "$to.new" "$to"
    # shellcheck disable=SC2016  # the dollars are dpkg's
    version=$(dpkg-deb -W --showformat='${Package} ${Version}\n' "$file")
    echo "$version" >"$to.version"
    echo "Unpacked $version"
done
