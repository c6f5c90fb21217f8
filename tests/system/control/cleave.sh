#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# cleave.sh: drives the command cleave in the control domain, and checks what it prints and its exit codes. Domain 1,
# template, is a Linux that does nothing; 2, worker, one whose forks do what their data say; 3, short, has ended by
# itself. It leaves 1 and 2 as they were, and no other.
# shellcheck source=tests/system/control/expect.sh
. /lib/expect.sh

commands="list info version stat create console fork wait reset snapshot restore pause unpause rename grant revoke destroy map diff dump top log pool audit"

usage() {
    expect 2 'cleave COMMAND'
    expect 0 'cleave COMMAND' --help
    expect 2 'no command "frok"' frok template
    expect 2 'no command "frok"' help frok
    for command in $commands; do
        expect 0 "^cleave $command" "$command" --help
        expect 0 "^cleave $command" help "$command"
        expect 2 'no option --wrong' "$command" --wrong
        expect 2 'no option -x' "$command" -x
    done
    for command in stat fork wait reset snapshot restore pause unpause rename destroy; do
        expect 2 'it takes' "$command"
        [ "$command" = snapshot ] || [ "$command" = rename ] || expect 3 'no domain "nobody"' "$command" nobody
        [ "$command" = snapshot ] || [ "$command" = rename ] || expect 3 'no domain 99' "$command" 99
        [ "$command" = snapshot ] || [ "$command" = rename ] || expect 2 'no number' "$command" id=9x
        [ "$command" = snapshot ] || [ "$command" = rename ] || expect 2 "no domain's number" "$command" 0
    done
    expect 2 'it takes' snapshot template
    expect 2 'it takes TARGET OVER' revoke
    expect 2 'it takes TARGET OVER' revoke template
    expect 2 'too many: fork' revoke template worker fork
    expect 2 'it takes --kernel=FILE' create
    expect 2 'it takes TARGET' console
    for command in snapshot restore; do
        expect 0 'in memory' "$command" --help
        expect 0 'gone when the machine stops' "$command" --help
    done
    expect 2 'too many: template' list template
    expect 2 'too many: b' fork a b
    for count in 0 65 -1 1x x 99999999999999999999 ''; do
        expect 2 'from 1 to 64' fork "--count=$count" template
    done
    expect 2 'value is missing for' fork template --count
    expect 2 'number of bytes' fork --limit=1x template
    expect 2 'number of bytes' fork --limit=0 template
    expect 2 'number of bytes' fork --limit=99999999999G template
    expect 2 'goes with --paused' fork --clock template
    expect 2 'without --data and' fork --data-dir=/tmp --count=2 template
    expect 2 'not take --count' wait --count=2 template
    expect 2 'not take --timeout' pause --timeout=2 template
    expect 2 'not take --dry-run' fork --dry-run template
    for timeout in -1 x 1x nan inf ''; do
        expect 2 'number of seconds' wait "--timeout=$timeout" template
    done
    long=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa # 64
    expect 2 '1 to 63 characters' stat $long
    expect 2 '1 to 63 characters' rename template $long
    expect 2 '1 to 63 characters' stat ''
}

shows() {
    json 0 hypervisor.revision 2 version
    json 0 tool.revision 2 version
    json 0 schema 1 list
    json 0 command list list
    json 0 domains.0.name template list
    json 0 domains.0.pool 1 list
    json 0 domains.0.state running list
    json 0 domains.1.name worker list
    json 0 domains.2.name short list
    json 0 domains.3.id 32751 list
    json 0 domains.3.name control list
    json 0 self 32751 info
    json 0 domains 4 info
    expect 0 '^ *1 template  *running  *1  *-  *- ' list
    json 0 domains.0.vcpus 1 stat template
    json 0 domains.0.name template stat 1
    json 0 domains.1.name worker stat template id=2
    [ "$(value domains.0.mapped_2m_bytes stat template)" -gt 67108864 ] || fail "few large leaves"
    json 0 violated '' audit
    expect 0 '^clean: ' audit
    json 3 errors.0.target nobody stat nobody
    json 3 ok false stat nobody
}

# Of a domain that it has not made, too.
waits() {
    json 0 domains.0.reason exited wait short --timeout=20
    json 0 domains.0.code 0 wait 3
    expect 0 '^3 short: exited, code 0' wait --any template short
    expect 5 'still running' wait --timeout=0 template
    expect 5 'still running when the time was over' wait --timeout=0.2 short template
    expect 0 '^3 short: would be destroyed' destroy --dry-run short
    json 0 dry_run true destroy --dry-run short
    expect 1 'template: it was not forked with a base' reset --dry-run template
    expect 2 'control: this is the domain that asks' destroy --dry-run short control
    expect 0 '^3 short: exited, code 0' wait --any --timeout=20 template short
    json 0 domains.2.state ended list
    json 0 domains.2.reason exited list
    expect 1 'FROZEN\|DYING' pause short
    expect 0 '^3 short: [0-9]* bytes in /tmp/core' dump -o /tmp/core short
    [ "$(cleave dump -o - short | head -c 4 | tail -c 3)" = ELF ] || fail "a core to a pipe"
    rm /tmp/core
    expect 0 '^3 short: destroyed' destroy short
    expect 3 'no domain "short"' wait short
}

pauses() {
    expect 0 '^1 template: paused' pause template
    json 0 domains.0.pauses 1 list
    json 0 domains.0.state paused stat template
    expect 0 '^1 template: unpaused' unpause template
    json 1 errors.0.status INVALID unpause template
    json 1 errors.0.argument domain unpause template
    for what in pause destroy reset; do
        expect 2 "$what: this is the domain that asks" $what control
    done
    expect 1 'it is not paused (INVALID)' unpause template
    expect 3 'this is the domain that asks' wait control
    json 0 domains.0.name template list
}

forks() {
    first=$(value domains.0.id fork -n 3 --paused template)
    json 0 domains.1.forked_from 1 stat worker "$first" # in the order of the targets
    json 0 domains.0.can_reset true stat "$first"
    json 0 domains.0.state paused stat "fork-$first"
    json 0 domains.2.name "fork-$((first + 2))" pause --all-children template
    json 0 domains.2.name "fork-$((first + 2))" unpause --all-children template
    json 0 domains.2.id $((first + 2)) unpause --all-children template
    json 0 domains.2.forked_from 1 stat --all-children template
    json 0 domains.2.id $((first + 2)) reset --all-children template
    json 0 dry_run false reset "$first"
    expect 0 'would be reset' reset --dry-run "$first"
    json 0 domains.1.name "fork-$((first + 1))" destroy --dry-run --all-children template
    json 0 old_name "fork-$first" rename "$first" passing
    expect 0 "renamed first" rename passing first
    expect 0 "first: has rights over 1 template" grant first template fork look
    expect 0 '"look"' grant --json first template look
    expect 0 "first: has no rights over 1 template" revoke first template
    json 0 over 1 revoke first template
    expect 2 'no right' grant first template everything
    expect 3 'no domain' grant nobody template fork
    expect 3 'no domain' revoke first nobody
    expect 1 'INVALID' grant first first fork
    expect 2 'it takes TARGET OVER RIGHT' grant first template
    expect 1 'is there already (EXISTS)' rename first template
    expect 1 'is no name (INVALID)' rename first 'two words'
    expect 1 'is no name (INVALID)' rename first fork-7
    expect 1 'is no name (INVALID)' rename first domain-7
    expect 1 'is no name (INVALID)' rename first ''
    expect 0 'renamed 123' rename first 123
    expect 3 'of number 123; one has that name' stat 123
    json 0 domains.0.id "$first" stat name=123
    json 0 domains.2.id $((first + 2)) destroy --all-children template
    expect 2 'goes with --paused' fork --clock template
    first=$(value domains.0.id fork --paused --clock template)
    json 0 domains.0.state paused stat "$first"
    json 0 dry_run false destroy "$first"
    json 0 domains 3 info
    first=$(value domains.0.id fork --no-base --reserve=all --limit=256M template)
    expect 1 NO_BASE reset "$first"
    expect 0 ': destroyed' destroy "$first" "$first"
    expect 1 'RESERVE\|NO_MEMORY\|QUOTA' fork -n 64 --reserve all template
    expect 1 'RESERVE\|NO_MEMORY\|QUOTA' fork --reserve=100G template
    for size in 0 x 1x '' 1MiB All; do
        expect 2 'reserve is a number of bytes' fork "--reserve=$size" template
    done
    for size in 16T 18446744073709547520 18446744073709551615; do
        expect 1 'COUNT: reserve is' fork "--reserve=$size" template
    done
    reserved=$(value reserved_bytes info)
    child=$(value domains.0.id fork --paused --reserve 5M template)
    more=$(($(value reserved_bytes info) - reserved)) # less what the child's own records took of it
    if [ $more -gt 5242880 ] || [ $more -lt 5000000 ]; then
        fail "$more bytes are reserved, not 5 MiB"
    fi
    expect 0 destroyed destroy "$child"
    [ "$(value reserved_bytes info)" = "$reserved" ] || fail "what was reserved"
    expect 1 'QUOTA' fork --limit=4K template
    json 0 domains 3 info
}

# What the child does by its data; the worker may not have got as far as to be forked, so it is tried again.
data() {
    echo 'code=7; note="from outside"' >/tmp/data
    tries=0
    while [ $tries -lt 6 ]; do
        tries=$((tries + 1))
        child=$(value domains.0.id fork --data=/tmp/data worker)
        cleave wait --timeout=5 "$child" >$out 2>&1 && break
        cleave destroy "$child" >/dev/null
        sleep 2
    done
    expect 0 "^$child fork-$child: exited, code 7: child 1: code 7, from outside\$" wait --timeout=5 "$child"
    json 0 domains.0.code 7 wait "$child"
    json 0 domains.0.reason exited wait "$child"
    expect 1 DYING reset "$child"
    expect 1 DYING fork "$child"
    expect 0 destroyed destroy "$child"
    mkdir /tmp/folder
    for code in 4 5; do
        echo "code=$code" >/tmp/folder/$code
    done
    json 0 domains.1.file /tmp/folder/5 fork --data-dir=/tmp/folder worker
    json 0 domains.1.reason exited wait --all --all-children worker --timeout=20
    cleave wait --all-children worker --json | grep code | sort | tr -d ' \n' >$out
    grep -q '"code":4,*"code":5' $out || fail "two children, two codes"
    expect 0 destroyed destroy --all-children worker
    head -c 4097 /dev/zero >/tmp/data
    expect 2 'more than the 4096' fork --data=/tmp/data worker
    head -c 4096 /dev/zero >/tmp/data
    child=$(value domains.0.id fork --paused --data=/tmp/data worker)
    expect 0 destroyed destroy "$child"
    expect 1 'No such file' fork --data=/tmp/nothing worker
    expect 1 'No such file' fork --data-dir=/tmp/nothing worker
    mkdir /tmp/empty
    expect 2 'no file' fork --data-dir=/tmp/empty worker
    json 0 domains.1.pauses 0 list
    json 0 domains 3 info
}

# A fork has what its parent had, and differs in what it wrote.
memory() {
    snapshot=$(value id snapshot template still)
    child=$(value domains.0.id fork --paused still)
    json 0 bytes 0 diff still "$child"
    json 0 ranges.0.exclusive false map still
    [ "$(check-json bytes <$out)" -gt 67108864 ] || fail "little is mapped"
    grep -q '"leaves": "2M"' $out || fail "no large leaves"
    expect 0 unpaused unpause "$child"
    sleep 1
    expect 0 ': paused' pause "$child"
    bytes=$(value bytes diff still "$child")
    [ "$bytes" -gt 0 ] || fail "it ran, and nothing differs"
    [ "$bytes" -lt 33554432 ] || fail "it differs in $bytes bytes"
    expect 0 'exclusive' map --table "$child"
    expect 0 '^00000[0-9a-f]* .*x' map "$child" # some of a block is its own, the rest shared
    expect 0 '^one cell is 2 MiB' map "$child"
    expect 0 '^00000[0-9a-f]* .*SSSSSSS' map still
    expect 0 'drawn in /tmp/map.svg' map --svg=/tmp/map.svg "$child"
    grep -q 'MiB: private and shared<' /tmp/map.svg || fail "the drawing"
    expect 1 'No such file' map --svg=/tmp/nothing/map.svg "$child"
    expect 1 'No space left' map --svg=/dev/full "$child"
    expect 2 'not take --svg' diff --svg=/tmp/map.svg still "$child"
    expect 0 ': reset' reset "$child"
    json 0 bytes 0 diff "$snapshot" "$child"
    expect 3 'no domain "nobody"' diff still nobody
    expect 3 'no domain "nobody"' diff nobody still
    expect 3 'no domain "nobody"' map nobody
    expect 2 'it takes' diff still
    expect 2 'it takes' map
    expect 0 destroyed destroy "$child" still
}

snapshots() {
    expect 0 ' kept$' snapshot template kept
    expect 1 'EXISTS' snapshot template kept
    expect 1 'INVALID' snapshot template 'not good'
    json 0 domains.0.state frozen stat kept
    json 0 domains.0.snapshot true stat kept
    expect 1 FROZEN pause kept
    expect 1 NO_BASE reset kept
    expect 2 'is a snapshot, which never ends' wait kept
    expect 3 'no domain 99' wait 99
    expect 1 'it is no snapshot' restore template
    child=$(value domains.1.id restore -n 2 --paused kept)
    json 0 from.name kept restore kept
    echo x >/tmp/data
    more=$(value domains.0.id restore --paused --data=/tmp/data --limit=256M --reserve=1M kept)
    json 0 domains.0.forked_from "$(value domains.0.id stat kept)" stat "$more"
    expect 0 destroyed destroy "$more"
    expect 1 QUOTA restore --limit=4K kept
    expect 1 'RESERVE\|NO_MEMORY\|QUOTA' restore --reserve=100G kept
    json 0 domains.1.file /tmp/folder/5 restore --paused --data-dir=/tmp/folder kept
    json 0 domains.0.state paused stat "$child"
    expect 0 unpaused unpause "$child"
    expect 0 ': reset' reset "$child"
    json 0 domains.2.state running stat template worker "$child"
    expect 0 destroyed destroy --all-children kept
    expect 0 destroyed destroy kept
    expect 3 'no domain "kept"' restore kept
    json 0 domains 3 info
}

# To files that can be written, and others. What gdb finds in one: tests/system/xc/dump.c.
dumps() {
    core=/tmp/small/core
    mkdir /tmp/small
    mount -t tmpfs -o size=256k none /tmp/small
    echo old >$core
    expect 2 'it takes -o FILE' dump template
    expect 2 'it takes -o FILE' dump -o '' template
    expect 2 'it takes TARGET' dump -o $core
    expect 2 'too many: worker' dump -o $core template worker
    expect 2 'value is missing for -o' dump template -o
    expect 2 'not take --output' pause -o $core template
    expect 2 'not take --live' map --live template
    expect 2 'number of bytes' dump --limit=x -o $core template
    expect 2 'goes with a file' dump -o - --json template
    expect 2 'cannot dump itself' dump -o $core control
    expect 3 'no domain "nobody"' dump -o $core nobody
    expect 1 'limit allows 4096: nothing is written' dump --limit=4K -o $core template
    expect 1 'its file system only .* left: nothing is written' dump -o $core template
    expect 1 'No such file' dump -o /tmp/nothing/core template
    expect 1 'Is a directory' dump -o /tmp template
    expect 1 'No space left on device' dump -o /dev/full template
    json 1 errors.0.target /dev/full dump -o /dev/full --live template
    [ "$(ls -A /tmp/small)" = core ] || fail "what failed left a file"
    [ "$(cat $core)" = old ] || fail "what failed changed the file that was there"
    umount /tmp/small
    json 0 domains.0.pauses 0 list
    still=$(value id snapshot template still)
    json 0 vcpus 1 dump -o /tmp/core still
    json 0 live false dump -o /tmp/core "$still"
    [ "$(check-json bytes <$out)" = "$(wc -c </tmp/core)" ] || fail "the file is as long as was said"
    rm /tmp/core
    expect 0 destroyed destroy still
}

# Tables of what domains do. The worker does something, the template does not.
tops() {
    expect 0 '^ *2 worker  *running  *[0-9.]* ' top
    expect 0 '^3 domains; [0-9.]* MiB, ' top
    [ "$(wc -l <$out)" = 5 ] || fail "one table"
    expect 0 '^32751 control ' top -n 2 -d 0.2
    [ "$(grep -c ' NAME ' $out)" = 2 ] || fail "two tables"
    json 0 tables.1.domains.1.name worker top -n 2 -d 0.1
    json 0 tables.0.domains.2.id 32751 top
    [ "$(value tables.0.domains.0.huge_percent top | cut -d. -f1)" -gt 10 ] || fail "how much is huge"
    [ "$(value tables.0.domains.0.shared_bytes top)" -ge 0 ] || fail "what is shared"
    share=$(value tables.0.domains.2.cpu_percent top | cut -d. -f1) # this one works, and has one vcpu
    if [ "$share" -lt 1 ] || [ "$share" -gt 110 ]; then
        fail "this domain had $share% of a CPU"
    fi
    for delay in 0 0.01 x -1 '' 100000; do
        expect 2 'from 0.1 to 86400' top "--delay=$delay"
    done
    for times in 0 -1 x '' 4294967296; do
        expect 2 'number from 1' top "--times=$times"
    done
    expect 2 'too many: template' top template
    expect 2 'not take --delay' list -d 1
}

logs() {
    expect 0 '^machine: SVM with NPT' log
    expect 0 '^domain 3 short: ' log
    json 0 command log log
    value text log | grep -q '^domain 3 short: ' || fail "the log as JSON"
    timeout -s TERM 1 cleave log --follow >$out 2>&1
    grep -q '^machine: SVM with NPT' $out || fail "the log that is followed"
    [ "$(grep -c '^machine: SVM' $out)" = 1 ] || fail "a line twice"
    expect 2 'goes without --json' log --follow --json
    expect 2 'too many: template' log template
    expect 2 'not take --follow' list --follow
    cleave log >/dev/full 2>/tmp/out2
    [ $? = 1 ] || fail "a log that cannot be written"
}

pools() {
    left=$(value left_bytes pool list)
    [ "$left" -gt 134217728 ] || fail "$left bytes are left for pools"
    expect 0 '^ *1 main *2688.0 ' pool list
    expect 0 '^tenant: 64.0 MiB' pool create tenant 65M
    expect 0 '^ *2 tenant *64.0 *6[34].[0-9] *0.0 *0$' pool list
    json 0 pools.1.bytes 67108864 pool list
    json 0 pools.1.spaces 0 pool list
    json 0 pools.1.closing false pool list
    expect 0 '^tenant: 96.0 MiB' pool resize tenant 97M
    expect 0 '^ *2 tenant *96.0 *9[56].[0-9] *0.0 *0$' pool list
    json 0 bytes 2097152 pool resize tenant 2M
    json 0 pools.1.bytes 2097152 pool list
    json 0 name tenant pool resize tenant 64M
    expect 0 '^tenant: 64.0 MiB' pool resize tenant 65M
    expect 1 'the pool "tenant" can have [0-9]*M at most (NO_MEMORY)' pool resize tenant 100G
    most=$(sed -n 's/.*can have \([0-9]*M\) at most.*/\1/p' $out)
    json 1 errors.0.status NO_MEMORY pool resize tenant 16777215T
    json 0 pools.1.bytes 67108864 pool list
    expect 0 '^tenant: ' pool resize tenant "$most"
    json 0 bytes 67108864 pool resize tenant 64M
    expect 1 'the pool "main" must have [0-9]*M at least (BUSY)' pool resize main 2M
    json 1 errors.0.status BUSY pool resize main 2M
    json 1 errors.0.status COUNT pool resize tenant 4K
    expect 1 'there is no pool "nobody"' pool resize nobody 4M
    expect 1 'is no name (INVALID)' pool resize 'two words' 4M
    expect 2 '1 to 31 characters' pool resize aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 4M
    json 0 bytes 2097152 pool create other 2M
    expect 1 'is there already (EXISTS)' pool create tenant 64M
    json 1 errors.0.status NO_MEMORY pool create huge 100G
    expect 1 'a pool can have [0-9]*M at most (NO_MEMORY)' pool create huge 100G
    json 1 errors.0.status COUNT pool create small 4K
    expect 1 'is no name (INVALID)' pool create 'two words' 4M
    expect 2 '1 to 31 characters' pool create aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 4M
    for size in 0 x 1x '' 99999999999G; do
        expect 2 'no size' pool create p "$size"
        expect 2 'no size' pool resize tenant "$size"
    done
    expect 2 'it takes list | create' pool
    expect 2 'it takes list | create' pool frob
    expect 2 'it takes list | create' pool list tenant
    expect 2 'it takes list | create' pool create tenant
    expect 2 'it takes list | create' pool resize
    expect 2 'it takes list | create' pool resize tenant
    expect 2 'it takes list | create' pool delete
    expect 2 'one argument too many' pool create tenant 4M 4M
    expect 2 'one argument too many' pool resize tenant 4M 4M
    expect 1 'there is no pool "nobody"' pool delete nobody
    expect 1 'are in the pool "main" (BUSY)' pool delete main
    json 1 errors.0.status BUSY pool delete main
    json 0 domains.0.state running stat template
    expect 2 'goes with delete' pool create --dry-run more 4M
    expect 2 'goes with delete' pool list --dry-run
    expect 1 'what forks go back to are in it' pool delete --dry-run main
    expect 1 'there is no such pool' pool delete --dry-run nobody
    expect 0 '^tenant: would be deleted' pool delete --dry-run tenant
    json 0 dry_run true pool delete --dry-run tenant
    expect 0 '^tenant: deleted' pool delete tenant
    json 0 name other pool delete other
    [ "$(value left_bytes pool list)" = "$left" ] || fail "what was a pool is not left again"
}

usage
shows
waits
pauses
forks
data
memory
snapshots
dumps
tops
logs
pools
json 0 violated '' audit
exit $((failures != 0))
