#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# install.sh: installs libcleave and the command below a folder, builds programs in C and C++ against what is there,
# looks what the command says where the hypervisor does not fit, and whether help, man page and completion know the
# same commands and options. Needs no hypervisor.
set -u
cd "$(dirname "$0")/.." || exit 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0
fail() {
    echo "FAIL  $*"
    failed=1
}

make --no-print-directory -s install DESTDIR="$folder" PREFIX=/usr || exit 1
for file in bin/cleave lib/libcleave.a lib/libcleave.so lib/libcleave.so.0 lib/pkgconfig/libcleave.pc \
    include/cleave.h include/cleave/abi.h include/cleave/status.h include/cleave/identity.h \
    share/man/man1/cleave.1 share/bash-completion/completions/cleave; do
    [ -s "$folder/usr/$file" ] || fail "no $file"
done
grep -q '^libdir=/usr/lib$' "$folder/usr/lib/pkgconfig/libcleave.pc" || fail "libcleave.pc names another folder"
! grep -q '@' "$folder/usr/lib/pkgconfig/libcleave.pc" || fail "libcleave.pc is not filled in"
readelf -d "$folder/usr/lib/libcleave.so.0" | grep -q 'SONAME.*\[libcleave\.so\.0\]' || fail "soname"
nm -D --defined-only "$folder/usr/lib/libcleave.so.0" | grep -v ' A LIBCLEAVE_0$' | grep -v ' T cleave_' &&
    fail "it exports what is not in cleave.h"
for name in $(nm -D --defined-only "$folder/usr/lib/libcleave.so.0" | sed -n 's/.* T //; s/@@.*//p'); do
    grep -q "\b$name(" tools/libcleave/cleave.h || fail "$name is not in cleave.h"
done

# Without a hypervisor it says what is missing.
cat >"$folder/program.c" <<'END'
#include <cleave.h>
#include <stdio.h>
int main(void)
{
    char why[CLEAVE_MESSAGE_SIZE] = "";
    struct cleave_handle *cleave = cleave_open(0, why);
    puts(cleave != NULL ? "open" : why);
    cleave_close(cleave);
    return cleave == NULL && why[0] == '\0';
}
END
cp "$folder/program.c" "$folder/program.cc"
package() { # package OPTION...: what pkg-config says of libcleave, as if the folder were the root
    PKG_CONFIG_PATH="$folder/usr/lib/pkgconfig" pkg-config --define-variable=prefix="$folder/usr" \
        --define-variable=libdir="$folder/usr/lib" "$@" libcleave
}
flags="-Wall -Wextra -Werror $(package --cflags)"
case " $flags " in *" -I$folder/usr/include "*) ;; *) fail "pkg-config --cflags: $flags" ;; esac
# shellcheck disable=SC2086,SC2046  # words are meant
{
    gcc $flags -o "$folder/shared" "$folder/program.c" $(package --libs) || fail "link with libcleave.so"
    gcc $flags -static -o "$folder/static" "$folder/program.c" $(package --static --libs) || fail "link with libcleave.a"
    LD_LIBRARY_PATH="$folder/usr/lib" "$folder/shared" >"$folder/said" || fail "a program with libcleave.so"
    "$folder/static" >"$folder/said.static" || fail "a program with libcleave.a"
    clang -x c++ -fsyntax-only $flags "$folder/program.cc" || fail "cleave.h in C++"
}
cmp -s "$folder/said" "$folder/said.static" || fail "the two say different things"

cleave() { LD_LIBRARY_PATH="$folder/usr/lib" "$folder/usr/bin/cleave" "$@"; }
if [ ! -e /dev/xen/privcmd ]; then
    cleave list >"$folder/list" 2>&1
    [ $? = 4 ] || fail "status of cleave list without a hypervisor"
    grep -q /dev/xen/privcmd "$folder/list" || fail "cleave list without a hypervisor"
fi

# With hypervisors that do not fit: fake_xencall.c says which there are.
# What reads files of others is built with the sanitizers.
mapfile -t objects < <(find build/tools/objects/cleave -name '*.o' ! -name kernel.o)
gcc -I hv/include -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all -o "$folder/fake" \
    tools/cleave/kernel.c hv/kernel/elf.c hv/kernel/pvh.c \
    "${objects[@]}" build/tools/libcleave.a \
    tests/tools/fake_xencall.c -ljansson -lxenctrl -llz4 -llzma -lz || fail "fake"
fake() { # fake WHICH STATUS TEXT ARGUMENT...
    local which=$1 status=$2 text=$3
    shift 3
    FAKE=$which "$folder/fake" "$@" >"$folder/said" 2>&1
    local found=$?
    # shellcheck disable=SC2254  # a pattern is meant
    case $found in
    $status) ;;
    *) fail "$which: cleave $*: status $found, not $status" ;;
    esac
    grep -q -e "$text" "$folder/said" || fail "$which: cleave $*: no \"$text\" in: $(cat "$folder/said")"
}
fake revision 4 'speaks revision 3, this program revision 2: use the tools' list
fake revision 4 'hypervisor: revision 3' version
fake revision 4 '"revision": 3' version --json
fake revision 4 '"ok": false' list --json
fake again 0 'hypervisor: revision 2' version
fake xen 4 'this is not Cleave' list
fake xen 4 'this is not Cleave' version
fake old 1 'list: the hypervisor does not know this operation' list
fake none 1 'audit: the right to do it is missing (DENIED: nothing is 5, allowed are 0 to 24)' audit
fake none 1 '"argument": "nothing"' audit --json
fake stranger 1 'audit: the right to do it is missing (DENIED)' audit # nothing of another call's argument
fake memory 4 'no memory' list
fake open 4 '/dev/xen/privcmd: Permission denied' list

# A console: the end of the input is not its own, but that of the domain is; on a terminal every key is typed, Ctrl-C
# too, up to Ctrl-], and the terminal is as it was.
printf 'abcdefg Q' | FAKE=console timeout 10 "$folder/fake" console guest >"$folder/said" 2>"$folder/errors" ||
    fail "console: status $?"
[ "$(cat "$folder/said")" = "ready: abcdefg Q" ] || fail "console: $(cat "$folder/said")"
grep -q 'guest: powered-off, code 0' "$folder/errors" || fail "console: $(cat "$folder/errors")"
until_said() { # until_said FILE TEXT: it is there, after 20 seconds at most
    for _ in $(seq 200); do
        ! grep -q "$2" "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    fail "console: no \"$2\" in: $(cat "$1")"
}
: >"$folder/said"
FAKE=console "$folder/fake" console guest </dev/null >"$folder/said" 2>&1 &
until_said "$folder/said" 'ready: '
sleep 0.1
kill "$!" || fail "console: it ends with its input"
wait "$!" || fail "console: status $? when it is stopped"
fake console 0 '"text": "ready: "' console --once --json guest
{
    until_said "$folder/typed" 'ready: '
    printf 'a\003bcd'
    until_said "$folder/typed" bcd
    printf '\035Q'
} | FAKE=console timeout 60 script -qfec \
    "stty rows 9; $folder/fake console guest; echo status \$?; stty -a" "$folder/typed" >/dev/null
tr -d '\r' <"$folder/typed" >"$folder/said"
grep -q "^ready: a$(printf '\003')bcd\$" "$folder/said" || fail "console on a terminal: $(cat "$folder/said")"
grep -q '^status 0$' "$folder/said" || fail "console on a terminal: status"
grep -q '[^-]icanon' "$folder/said" || fail "console: the terminal stays raw"

# Kernels: a bzImage of a small ELF kernel, as Linux packs its own, whole and broken. What can be unpacked comes as far as
# the hypervisor, which refuses to say how much memory there is.
bzimage() { # bzimage PAYLOAD OFFSET LENGTH: with the payload that far behind the setup code
    { head -c 1024 /dev/zero && head -c "$2" /dev/zero && cat "$1"; } >"$folder/image"
    printf '\1' | dd of="$folder/image" bs=1 seek=497 conv=notrunc status=none
    printf 'HdrS\10\2' | dd of="$folder/image" bs=1 seek=514 conv=notrunc status=none
    word "$2" | dd of="$folder/image" bs=1 seek=584 conv=notrunc status=none
    word "$3" | dd of="$folder/image" bs=1 seek=588 conv=notrunc status=none
}
word() { # word NUMBER: 4 bytes
    # shellcheck disable=SC2059  # the number is bytes of the format
    printf "$(printf '\\%o\\%o\\%o\\%o' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)))"
}
made() { # made STATUS TEXT FILE
    fake none "$1" "$2" create --kernel="$3" --memory=32M
}
hello=build/guests/hello.elf
size=$(wc -c <$hello)
good='stat: the right to do it is missing'
made 1 "$good" $hello
{ lz4 -q -l -c $hello && word "$size"; } >"$folder/lz4"
{ xz -q --check=crc32 --x86 --lzma2 -c $hello && word "$size"; } >"$folder/xz"
gzip -c $hello >"$folder/gzip"
for format in lz4 xz gzip; do
    length=$(wc -c <"$folder/$format")
    bzimage "$folder/$format" 77 "$length"
    made 1 "$good" "$folder/image"
    for cut in 1 4 100 $((length - 7)); do # from the file, and from what its header says
        head -c -$cut "$folder/image" >"$folder/cut"
        made 2 'cut short' "$folder/cut"
        bzimage "$folder/$format" 77 $((length - cut))
        made 2 'cut short\|cannot be unpacked\|has no size' "$folder/image"
    done
    for at in 0 20 300 $((length / 2)) $((length - 12)); do # 16 bytes are others
        cp "$folder/$format" "$folder/bad"
        head -c 16 /dev/zero | tr '\0' '\125' | dd of="$folder/bad" bs=1 seek="$at" conv=notrunc status=none
        bzimage "$folder/bad" 0 "$length"
        made 2 'compressed by none\|cannot be unpacked\|has no size' "$folder/image"
    done
    for wrong in $((size - 1)) $((size + 1)) 0 $((1 << 30)) $(((1 << 30) + 1)) $(((1 << 32) - 1)); do
        { head -c -4 "$folder/$format" && word "$wrong"; } >"$folder/bad"
        bzimage "$folder/bad" 0 "$length"
        made 2 'cannot be unpacked\|has no size' "$folder/image"
    done
    bzimage "$folder/$format" 77 $(((1 << 32) - 1))
    made 2 'cut short' "$folder/image"
    bzimage "$folder/$format" $(((1 << 20) - 1)) "$length"
    word $(((1 << 32) - 1)) | dd of="$folder/image" bs=1 seek=584 conv=notrunc status=none
    made 2 'cut short' "$folder/image"
    bzimage "$folder/$format" 77 "$length"
    printf '\7\2' | dd of="$folder/image" bs=1 seek=518 conv=notrunc status=none
    made 2 'older than 2.08' "$folder/image"
done
for bytes in 0 1 3 591; do
    head -c $bytes "$folder/image" >"$folder/cut"
    made '[12]' 'empty\|neither an ELF kernel nor a bzImage' "$folder/cut"
done
for bytes in 4 63 64 200 5000; do # of an ELF file
    head -c $bytes $hello >"$folder/cut"
    made 2 'kernel: ' "$folder/cut"
done
{ cat $hello && word "$size"; } >"$folder/bad"
bzimage "$folder/bad" 0 $((size + 4))
made 2 'compressed by none of gzip, xz and lz4' "$folder/image"
# What no command asks for.
cat >"$folder/create.c" <<'END'
#include <cleave.h>
#include <errno.h>
int main(void)
{
    struct cleave_handle *cleave = cleave_open(0, 0);
    uint32_t id = 0;
    const char *longest = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"; /* 64 */
    static const struct { uint64_t asked, told; int status; } forks[] = {
        {0, UINT64_MAX, CLEAVE_RESERVE}, {1, 4096, 0}, {4096, 4096, 0}, {4097, 8192, 0},
        {(1ull << 44) - 4096, (1ull << 44) - 4096, 0}, {(1ull << 44) - 4095, 1, CLEAVE_COUNT},
        {UINT64_MAX - 4095, 1, CLEAVE_COUNT}, {UINT64_MAX - 4094, 1, CLEAVE_COUNT}, {UINT64_MAX, 1, CLEAVE_COUNT},
    };
    for (unsigned i = 0; i < sizeof(forks) / sizeof(forks[0]); i++) {
        struct cleave_fork_options options = {.count = 1, .flags = CLEAVE_FORK_RESERVE,
                                              .reserve = forks[i].asked, .limit = forks[i].told};
        if (cleave_fork(cleave, 9, &options, 0) != forks[i].status) {
            return 2 + i;
        }
    }
    return cleave_create_in(cleave, 3, "new", 2, 4 << 20, &id) != 0 || id != 324 ||
           cleave_create_in(cleave, 3, longest, 2, 4 << 20, &id) != -EINVAL;
}
END
gcc -I "$folder/usr/include" -I hv/include -Wall -Wextra -Werror -o "$folder/create" "$folder/create.c" \
    build/tools/libcleave.a tests/tools/fake_xencall.c || fail "create"
status=0
FAKE=mapped "$folder/create" || status=$?
[ $status = 0 ] || fail "a domain in a pool (1), or a reservation (2 and more): $status"

# Cores of domains that were never there.
gcc -std=gnu11 -O2 -Wall -Wextra -Werror -I hv/include -I tools/libcleave -I tools/cleave -o "$folder/core_check" \
    tests/tools/core_check.c tools/cleave/core*.c || fail "core_check"
"$folder/core_check" >"$folder/said" || fail "a core: $(cat "$folder/said")"

# Pictures of memory, of which the fake has every kind; on a terminal (of script(1)) in colours.
fake mapped 0 '^000000000000 P*x*\.*$' map 9
fake mapped 0 '^000040000000 &*$' map 9
fake mapped 0 '^one cell is ' map 9
fake mapped 0 '9 a<b&"c>: 3.0 MiB private, 1025.0 MiB shared, 99.8% by 2M or 1G leaves' map 9
fake mapped 0 '000000200000 - 000000201000 .* 4 KiB  4K  *rwx  shared' map --table 9
fake mapped 0 '"leaves": "not-loaded"' map --json 9
fake mapped 0 'drawn in' map --svg="$folder/map.svg" 9
xmllint --noout "$folder/map.svg" || fail "a drawing that is no XML"
grep -q 'a&lt;b&amp;&quot;c&gt;' "$folder/map.svg" || fail "the name in the drawing"
grep -q '>0x40000000, [0-9]* MiB: shared (1G)<' "$folder/map.svg" || fail "what is shared in the drawing"
grep -q '>0x100000000, [0-9]* MiB: not loaded<' "$folder/map.svg" || fail "what is not loaded in the drawing"
fake mapped 1 'No such file' map --svg=/nothing/map.svg 9
fake mapped 1 'No space left' map --svg=/dev/full 9
FAKE=mapped script -q -e -c "stty cols 100 rows 20; '$folder/fake' map 9" "$folder/typed" >/dev/null ||
    fail "map on a terminal"
grep -q "$(printf '\033\\[1;7;36m&&*\033\\[0m')" "$folder/typed" || fail "no colours on a terminal"

# What takes longer than a second says how far it is, on a terminal, and takes that away.
for what in 'map 9' 'diff 9 9'; do # this one in vain: the page that is not loaded is not read
    SLOW=1500 FAKE=mapped timeout 20 script -q -c "'$folder/fake' $what" "$folder/typed" >/dev/null
    grep -q "$(printf '\r')cleave ${what%% *}: [1-9][0-9]* MiB.*$(printf '\r\033\\[K')" "$folder/typed" ||
        fail "$what: how far it is"
done
FAKE=mapped script -q -e -c "'$folder/fake' map 9" "$folder/typed" >/dev/null && grep -q 'cleave map: ' "$folder/typed" &&
    fail "map: how far it is, at once"
SLOW=1500 FAKE=mapped "$folder/fake" map 9 2>"$folder/said" >/dev/null
[ ! -s "$folder/said" ] || fail "map: how far it is, to a file"
# Others tell for how long they have been at it, and take the line away before they tell anything else.
FAKE=slow script -q -e -c "'$folder/fake' audit" "$folder/typed" >/dev/null || fail "audit, slowly"
grep -q "$(printf '\rcleave audit: 1 s\r\033\\[Kclean: ')" "$folder/typed" || fail "audit: for how long: $(cat "$folder/typed")"
FAKE=slow script -q -e -c "'$folder/fake' unpause 3 4" "$folder/typed" >/dev/null && fail "unpause, slowly"
grep -q "$(printf '\rcleave unpause: 1 s\r\033\\[Kcleave unpause: 3: ')" "$folder/typed" || fail "unpause: for how long"
for way in "bash -mc '$folder/fake audit & wait'" "setsid -w $folder/fake audit"; do # in the background; no terminal of its own
    FAKE=slow script -q -e -c "$way" "$folder/typed" >/dev/null || fail "$way"
    grep -q '^clean: ' "$folder/typed" || fail "$way: no audit"
    grep -q 'audit: [0-9]* s' "$folder/typed" && fail "$way: for how long"
done
FAKE=slow "$folder/fake" audit 2>"$folder/said" >/dev/null
[ ! -s "$folder/said" ] || fail "audit: for how long, to a file"

# The table of domains, where libxenctrl tells no times; on a terminal it is drawn in place, until q.
fake mapped 0 '^1 domains; 4096.0 MiB, 0.0 free' top
fake mapped 0 '^ *9 a<b&"c> *starved *- *123456 *1.5 *2.0 *6.0 *25$' top -n 2 -d 0.1
[ "$(grep -c starved "$folder/said")" = 2 ] || fail "not two tables"
fake mapped 0 '"cpu_percent": null' top --json
(sleep 1; printf q) | FAKE=mapped timeout 10 script -q -e -c "stty rows 20; '$folder/fake' top -d 0.1" "$folder/typed" \
    >/dev/null || fail "top on a terminal"
[ "$(grep -c "$(printf '\033\\[H1 domains')" "$folder/typed")" -ge 2 ] || fail "top on a terminal is not drawn again"
fake mapped 4 'libxenctrl' dump -o "$folder/core" 9
[ ! -e "$folder/core" ] || fail "a file of a dump that was none"
fake mapped 4 'libxenctrl' log

man=tools/cleave/cleave.1
commands=$(cleave --help | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ "$(echo "$commands" | wc -l)" -ge 14 ] || fail "few commands: $commands"
for command in $commands; do
    grep -q "^\.It Cm.* $command\b" "$man" || fail "cleave.1 does not know $command"
    for option in $(cleave help "$command" | sed -n 's/^ *\(-[a-z], \)\{0,1\}--\([a-z-]*\).*/\2/p'); do
        grep -q -e "Fl -$option" "$man" || fail "cleave.1 does not know --$option"
    done
done
# shellcheck source=tools/cleave/completion.bash
. "$folder/usr/share/bash-completion/completions/cleave"
complete_words() {
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    _cleave
    echo "${COMPREPLY[*]}"
}
[ "$(complete_words cleave re | tr ' ' '\n' | sort | paste -sd ' ')" = "rename reset restore revoke" ] ||
    fail "completion of a command: $(complete_words cleave re)"
[ "$(complete_words cleave fork --da | tr ' ' '\n' | sort | paste -sd ' ')" = "--data --data-dir" ] ||
    fail "completion of an option: $(complete_words cleave fork --da)"
[ "$(complete_words cleave create --k)" = "--kernel" ] || fail "completion: $(complete_words cleave create --k)"
[ "$(complete_words cleave create --kernel tests/install)" = "tests/install.sh" ] || fail "completion of a file"
[ "$(complete_words cleave pool re)" = resize ] || fail "completion: $(complete_words cleave pool re)"
[ "$(complete_words cleave pool '' | tr ' ' '\n' | sort | paste -sd ' ')" = "create delete list resize" ] ||
    fail "completion of what pool does: $(complete_words cleave pool '')"
[ "$(complete_words cleave fork --c | tr ' ' '\n' | sort | paste -sd ' ')" = "--clock --count" ] ||
    fail "completion of an option: $(complete_words cleave fork --c)"
[ "$(complete_words cleave fork --reserve a)" = all ] || fail "completion of what is reserved"
[ "$(complete_words cleave fork --reserve = a)" = all ] || fail "completion behind ="
[ "$(complete_words cleave fork --reserve =)" = all ] || fail "completion at ="
[ "$(complete_words cleave create --kernel = tests/install)" = "tests/install.sh" ] || fail "completion of a file behind ="
[ -z "$(complete_words cleave fork --count =)" ] || fail "completion of a number"

# The packages: the same bytes each time, what they hold is all that is installed, and they come off again.
for i in 1 2; do
    configs/deb.sh "$folder/deb$i" >"$folder/said" 2>&1 || fail "deb.sh: $(cat "$folder/said")"
done
diff -r "$folder/deb1" "$folder/deb2" || fail "the packages are not the same twice"
mkdir -p "$folder/root/var/lib/dpkg/info" "$folder/root/var/lib/dpkg/updates"
: >"$folder/root/var/lib/dpkg/status"
dpkg --root="$folder/root" --force-depends --force-not-root --log=/dev/null -i "$folder"/deb1/*.deb \
    >"$folder/said" 2>&1 || fail "dpkg -i: $(cat "$folder/said")"
library=$(dirname "$(find "$folder/root/usr/lib" -name libcleave.so.0)")
LD_LIBRARY_PATH=$library "$folder/root/usr/bin/cleave" --help >/dev/null || fail "the packages' cleave"
[ "$(find "$folder/usr" -not -type d | wc -l)" = "$(find "$folder/root/usr" -not -type d -not -path '*/doc/*' | wc -l)" ] ||
    fail "the packages do not hold what is installed"
grep -q '^Depends: libcleave0 (= .*libc6 (>= .*libjansson4' "$folder/root/var/lib/dpkg/status" || fail "what cleave depends on"
dpkg --root="$folder/root" --force-depends --force-not-root --log=/dev/null -r cleave libcleave-dev libcleave0 \
    >"$folder/said" 2>&1 || fail "dpkg -r: $(cat "$folder/said")"
[ -z "$(find "$folder/root/usr" -not -type d 2>/dev/null)" ] || fail "something stays behind"
exit $failed
