/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands, their help, and the parsing of options. */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORK_HELP                                                                                  \
    "  -n, --count=N     so many children, 1 to 64 (1), all of one instant, or none\n"             \
    "      --reserve=SIZE  sets aside so much memory for each, or \"all\" that it can need: as\n"  \
    "                    far as that goes, their writes cannot fail\n"                             \
    "      --no-base     keeps nothing to go back to: saves memory, but \"cleave reset\" "         \
    "refuses\n"                                                                                    \
    "      --paused      they stand still, and so do their clocks, until \"cleave unpause\"\n"     \
    "      --clock       with --paused: their clocks go on\n"                                      \
    "      --limit=SIZE  of memory that each may be charged for (K, M, G; without: as much as\n"   \
    "                    this domain)\n"                                                           \
    "      --data=FILE   each finds these bytes, at most 4096, behind its identity page\n"         \
    "      --data-dir=DIR  a child for each file of DIR, in the order of their names, with its\n"  \
    "                    bytes; the parent is paused meanwhile\n"

#define CHILDREN_HELP                                                                              \
    "      --all-children  the domains that were forked from the targets, instead of these\n"

const struct command commands[] = {
    {"list", run_list, 0, 0, 0, "", "shows the domains there are",
     "FORKED is the domain or snapshot that it was forked from, MADE the one that asked for it.\n"},
    {"info", run_info, 0, 0, 0, "", "shows machine, memory and how many domains there are", ""},
    {"version", run_version, 0, 0, 0, "", "shows the revisions of this tool and the hypervisor",
     "Exit code 4 when they differ: then other commands refuse to run.\n"},
    {"stat", run_stat, OPT_CHILDREN, 1, -1, "TARGET...", "shows memory and counts of domains",
     CHILDREN_HELP "\nMemory is in bytes. \"exclusive\" is what it alone holds, \"shared\" what it "
                   "holds with others;\nmapped_* is its memory by the size of leaves.\n"},
    {"create", run_create, OPT_CREATE, 0, 0, "--kernel=FILE",
     "makes a domain of a kernel, and starts it",
     "      --kernel=FILE  a bzImage (/boot/vmlinuz) or an ELF kernel, that boots as a PVH guest\n"
     "      --initrd=FILE  its initial RAM disk\n"
     "      --cmdline=TEXT  its command line, of at most 1023 characters\n"
     "      --memory=SIZE  K, M, G or T (512M); it has all of it from the start\n"
     "      --vcpus=N     1 to 8 (1)\n"
     "      --pool=NAME   whose memory it has (this domain's own)\n"
     "      --name=NAME   unique; without: domain-<number>\n"
     "      --paused      it stands still until \"cleave unpause\"\n"
     "\nWhen something is wrong, nothing is left of it.\n"
     "\nExample:\n"
     "  cleave create --kernel=/boot/vmlinuz --initrd=/boot/initrd.img --memory=1G --vcpus=2 \\\n"
     "      --cmdline=\"console=hvc0\" --name=template\n"},
    {"console", run_console, OPT_CONSOLE, 1, 1, "TARGET",
     "shows what a domain prints, and types for it",
     "      --once        shows what is kept of it, at most 4032 bytes, and reads no input\n"
     "\nIt ends with the domain, and on a terminal by Ctrl-]. The end of its input does not end "
     "it.\n"},
    {"fork", run_fork, OPT_COUNT | OPT_FORK, 1, 1, "TARGET",
     "makes children of a domain, which share its memory",
     FORK_HELP "\nExamples:\n"
               "  cleave fork template                    one child, named fork-<number>\n"
               "  cleave fork -n 8 --paused template      eight that wait for \"cleave unpause "
               "--all-children template\"\n"},
    {"wait", run_wait, OPT_WAIT | OPT_CHILDREN, 1, -1, "TARGET...",
     "waits until domains have ended, and says how",
     "      --all         until all have ended (this is so without an option)\n"
     "      --any         until one has\n"
     "      --timeout=SECONDS  and no longer: then exit code 5; 0 only looks\n" CHILDREN_HELP
     "\nEnds are kept until a domain is destroyed.\n"},
    {"reset", run_reset, OPT_CHILDREN | OPT_DRY_RUN, 1, -1, "TARGET...",
     "takes children back to the moment of their fork",
     CHILDREN_HELP "      --dry-run     says what would be reset, and resets nothing\n"
                   "\nA child of \"cleave fork --no-base\" cannot be reset, nor one that has "
                   "ended.\n"},
    {"snapshot", run_snapshot, 0, 2, 2, "TARGET NAME", "keeps a frozen copy of a domain",
     "\"cleave restore NAME\" makes domains of it, \"cleave destroy NAME\" gives it up.\n"
     "It lives in memory, and is gone when the machine stops.\n"},
    {"restore", run_restore, OPT_COUNT | OPT_FORK, 1, 1, "SNAPSHOT",
     "makes running domains of a snapshot",
     FORK_HELP "\nSnapshots live in memory: they are gone when the machine stops.\n"},
    {"pause", run_pause, OPT_CHILDREN, 1, -1, "TARGET...", "stops domains until unpause",
     CHILDREN_HELP "\nPauses are counted: each takes an unpause.\n"},
    {"unpause", run_unpause, OPT_CHILDREN, 1, -1, "TARGET...", "lets paused domains go on",
     CHILDREN_HELP},
    {"rename", run_rename, 0, 2, 2, "TARGET NAME", "gives a domain another name",
     "A name has 1 to 63 letters, digits, '-', '_' and '.', does not begin with \"fork-\" or "
     "\"domain-\", and is unique.\nA domain whose name is digits alone is \"name=17\" as a target: "
     "17 is a number.\n"},
    {"grant", run_grant, 0, 3, 5, "TARGET OVER RIGHT...",
     "gives a domain rights over another, and no more",
     "RIGHT is fork, look (stat) or hold (pause, unpause). These take the place of what it was "
     "given\nover that domain before. It cannot pass them on, and its forks have none.\n"},
    {"revoke", run_revoke, 0, 2, 2, "TARGET OVER", "takes such rights back",
     "What the domain has made meanwhile stays its own.\n"},
    {"destroy", run_destroy, OPT_CHILDREN | OPT_DRY_RUN, 1, -1, "TARGET...",
     "ends domains and gives their memory back",
     CHILDREN_HELP "      --dry-run     says what would be destroyed, and destroys nothing\n"
                   "\nTheir forks live on. Destroy these first, to find them by --all-children.\n"},
    {"map", run_map, OPT_MAP, 1, 1, "TARGET", "shows how a domain's memory is mapped",
     "      --table       ranges, with the size of leaves, what they allow now (writing is missing "
     "until\n"
     "                    the first write), and whether the domain holds them alone\n"
     "      --svg=FILE    draws the picture in a file\n"
     "\nWithout an option a picture: one cell is 2 MiB, or as much more as makes all of it fit, "
     "and "
     "p P @\nprivate by leaves of 4 KiB, 2 MiB, 1 GiB, s S & shared, x both, ? not loaded, . "
     "nothing.\n"},
    {"diff", run_diff, 0, 2, 2, "TARGET TARGET", "shows in which pages two domains differ",
     "What was never touched counts as zeros. Pause what runs, or it changes meanwhile.\n"},
    {"dump", run_dump, OPT_DUMP, 1, 1, "TARGET", "writes a domain's memory and registers to a file",
     "  -o, --output=FILE  where to; - is standard output\n"
     "      --limit=SIZE  refuses where the file would be larger (K, M, G)\n"
     "      --live        the domain runs meanwhile; else it is paused\n"
     "\nAn ELF core that gdb and crash read: one thread for each vcpu, memory at its physical "
     "addresses,\n"
     "and at those of a 64-bit Linux kernel's image. What was never touched takes no room. The "
     "file "
     "is\n"
     "whole or not there.\n"},
    {"top", run_top, OPT_TOP, 0, 0, "", "shows again and again what domains do",
     "  -d, --delay=SECONDS  between two tables (2)\n"
     "  -n, --times=N     so many tables; else until q on a terminal, one to anything else\n"
     "\nShares of one CPU since the last table, faults, what was copied, what a domain holds alone "
     "and\n"
     "with others (MiB), and how much of it is mapped by leaves of 2 MiB or 1 GiB.\n"},
    {"log", run_log, OPT_LOG, 0, 0, "", "shows what the hypervisor printed",
     "  -f, --follow      goes on with what it prints, until it is stopped\n"
     "\nThe newest 16 KiB; without what domains print.\n"},
    {"pool", run_pool, OPT_DRY_RUN, 1, 3,
     "list | create NAME SIZE | resize NAME SIZE | delete NAME",
     "shows, makes, resizes and deletes pools: memory of tenants",
     "      --dry-run     with delete: says whether it would be deleted, and does not\n\n"
     "A pool is made of memory that no pool has: SIZE in bytes, or with K, M, G or T, rounded down "
     "to\n"
     "2 MiB. It is deleted when no domain and no snapshot is in it, and its memory can be "
     "another's.\n"
     "SPACES are domains, snapshots, and what forks go back to. It grows by memory right behind it "
     "that\n"
     "no pool has, and shrinks down to the last of it that is in use; refused, it says how far it "
     "can.\n"},
    {"audit", run_audit, 0, 0, 0, "", "checks this domain's pool with the machine stopped",
     "Exit code 6 when an invariant is violated. The machine stands still for it. Other pools: "
     "\"audit\"\non the hypervisor's debug console.\n"},
    {.name = NULL}};

enum {
    LONG = 256,
    RESERVE,
    NO_BASE,
    PAUSED,
    CLOCK,
    LIMIT,
    DATA,
    DATA_DIR,
    ANY,
    ALL,
    TIMEOUT,
    CHILDREN,
    DRY_RUN,
    KERNEL,
    INITRD,
    CMDLINE,
    MEMORY,
    VCPUS,
    POOL,
    NAME,
    ONCE,
    LIVE,
    SVG,
    TABLE,
    TIMES,
    JSON
};

static const struct option table[] = {{"count", required_argument, NULL, 'n'},
                                      {"reserve", required_argument, NULL, RESERVE},
                                      {"no-base", no_argument, NULL, NO_BASE},
                                      {"paused", no_argument, NULL, PAUSED},
                                      {"clock", no_argument, NULL, CLOCK},
                                      {"limit", required_argument, NULL, LIMIT},
                                      {"data", required_argument, NULL, DATA},
                                      {"data-dir", required_argument, NULL, DATA_DIR},
                                      {"any", no_argument, NULL, ANY},
                                      {"all", no_argument, NULL, ALL},
                                      {"timeout", required_argument, NULL, TIMEOUT},
                                      {"all-children", no_argument, NULL, CHILDREN},
                                      {"dry-run", no_argument, NULL, DRY_RUN},
                                      {"kernel", required_argument, NULL, KERNEL},
                                      {"initrd", required_argument, NULL, INITRD},
                                      {"cmdline", required_argument, NULL, CMDLINE},
                                      {"memory", required_argument, NULL, MEMORY},
                                      {"vcpus", required_argument, NULL, VCPUS},
                                      {"pool", required_argument, NULL, POOL},
                                      {"name", required_argument, NULL, NAME},
                                      {"once", no_argument, NULL, ONCE},
                                      {"output", required_argument, NULL, 'o'},
                                      {"live", no_argument, NULL, LIVE},
                                      {"svg", required_argument, NULL, SVG},
                                      {"table", no_argument, NULL, TABLE},
                                      {"delay", required_argument, NULL, 'd'},
                                      {"times", required_argument, NULL, TIMES},
                                      {"follow", no_argument, NULL, 'f'},
                                      {"json", no_argument, NULL, JSON},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static unsigned group_of(int option)
{
    switch (option) {
    case 'n':
        return OPT_COUNT | OPT_TOP;
    case 'd':
    case TIMES:
        return OPT_TOP;
    case 'f':
        return OPT_LOG;
    case ANY:
    case ALL:
    case TIMEOUT:
        return OPT_WAIT;
    case CHILDREN:
        return OPT_CHILDREN;
    case DRY_RUN:
        return OPT_DRY_RUN;
    case KERNEL:
    case INITRD:
    case CMDLINE:
    case MEMORY:
    case VCPUS:
    case POOL:
    case NAME:
        return OPT_CREATE;
    case PAUSED:
        return OPT_FORK | OPT_CREATE;
    case ONCE:
        return OPT_CONSOLE;
    case LIMIT:
        return OPT_FORK | OPT_DUMP;
    case 'o':
    case LIVE:
        return OPT_DUMP;
    case SVG:
    case TABLE:
        return OPT_MAP;
    default:
        return OPT_FORK;
    }
}

void usage_print(FILE *to, const struct command *command)
{
    fprintf(to, "cleave %s [--json]%s%s%s: %s\n", command->name,
            command->options != 0 ? " [OPTION]..." : "", command->usage[0] != '\0' ? " " : "",
            command->usage, command->purpose);
    if (command->help[0] != '\0') {
        fprintf(to, "\n%s", command->help);
    }
}

static bool refuse(struct run *run, const char *what, const char *value)
{
    fprintf(stderr, "cleave %s: %s%s: see \"cleave %s --help\"\n", run->command->name, what, value,
            run->command->name);
    run->exit = USAGE;
    return false;
}

/* A number of decimal digits and nothing else. */
static bool parse_number(const char *text, uint64_t *out, const char **rest)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    *rest = end;
    return text[0] >= '0' && text[0] <= '9' && errno == 0;
}

static bool parse_count(struct run *run, const char *text)
{
    uint64_t count;
    const char *rest;
    if (!parse_number(text, &count, &rest) || *rest != '\0' || count == 0 ||
        count > CLEAVE_FORKS_MAX) {
        return refuse(run, "--count is a number from 1 to 64, not ", text);
    }
    run->options.count = (uint32_t)count;
    return true;
}

bool parse_size(const char *text, uint64_t *out)
{
    const char *rest;
    bool good = parse_number(text, out, &rest) && *out != 0;
    if (good && *rest != '\0') {
        const char *unit = strchr("KMGT", *rest);
        unsigned shift = unit != NULL ? 10 * (unsigned)(unit - "KMGT" + 1) : 64;
        good = unit != NULL && rest[1] == '\0' && *out <= UINT64_MAX >> shift;
        *out = good ? *out << shift : 0;
    }
    return good;
}

static bool parse_memory(struct run *run, const char *text)
{
    return parse_size(text, &run->options.memory) ||
           refuse(run, "--memory is a number of bytes, or with K, M, G or T, as in 256M, not ",
                  text);
}

static bool parse_vcpus(struct run *run, const char *text)
{
    uint64_t count;
    const char *rest;
    if (!parse_number(text, &count, &rest) || *rest != '\0' || count == 0 ||
        count > CLEAVE_VCPUS_MAX) {
        return refuse(run, "--vcpus is a number from 1 to 8, not ", text);
    }
    run->options.vcpus = (uint32_t)count;
    return true;
}

static bool parse_limit(struct run *run, const char *text)
{
    return parse_size(text, &run->options.limit) ||
           refuse(run, "--limit is a number of bytes, or with K, M, G or T, as in 256M, not ",
                  text);
}

static bool parse_reserve(struct run *run, const char *text)
{
    run->options.flags |= CLEAVE_FORK_RESERVE;
    return strcmp(text, "all") == 0 || parse_size(text, &run->options.reserve) ||
           refuse(run,
                  "--reserve is a number of bytes, or with K, M, G or T, as in 256M, or all, not ",
                  text);
}

/* Seconds as milliseconds; false: no such number. */
static bool parse_seconds(const char *text, int64_t *out)
{
    char *end;
    double seconds = strtod(text, &end);
    bool digits = text[0] == '.' || (text[0] >= '0' && text[0] <= '9');
    if (!digits || *end != '\0' || !isfinite(seconds) || seconds > 1e9) {
        return false;
    }
    *out = (int64_t)(seconds * 1000);
    return true;
}

static bool parse_timeout(struct run *run, const char *text)
{
    return parse_seconds(text, &run->options.timeout) ||
           refuse(run, "--timeout is a number of seconds, not ", text);
}

static bool parse_delay(struct run *run, const char *text)
{
    bool good = parse_seconds(text, &run->options.delay) && run->options.delay >= 100 &&
                run->options.delay <= 86400000;
    return good || refuse(run, "--delay is a number of seconds, from 0.1 to 86400, not ", text);
}

static bool parse_times(struct run *run, const char *text)
{
    uint64_t times;
    const char *rest;
    bool good =
        parse_number(text, &times, &rest) && *rest == '\0' && times != 0 && times <= UINT32_MAX;
    run->options.times = good ? (uint32_t)times : 0;
    return good || refuse(run, "--times is a number from 1, not ", text);
}

static bool take_create(struct run *run, int option)
{
    struct options *o = &run->options;
    switch (option) {
    case KERNEL:
        o->kernel = optarg;
        return true;
    case INITRD:
        o->initrd = optarg;
        return true;
    case CMDLINE:
        o->cmdline = optarg;
        return true;
    case MEMORY:
        return parse_memory(run, optarg);
    case VCPUS:
        return parse_vcpus(run, optarg);
    case POOL:
        o->pool = optarg;
        return true;
    case NAME:
        o->name = optarg;
        return true;
    default:
        return refuse(run, "an option that it does not have", "");
    }
}

static bool take(struct run *run, int option)
{
    struct options *o = &run->options;
    switch (option) {
    case 'n':
        return run->command->options & OPT_TOP ? parse_times(run, optarg)
                                               : parse_count(run, optarg);
    case 'd':
        return parse_delay(run, optarg);
    case TIMES:
        return parse_times(run, optarg);
    case 'f':
        o->follow = true;
        return true;
    case RESERVE:
        return parse_reserve(run, optarg);
    case NO_BASE:
        o->no_base = true;
        return true;
    case PAUSED:
        o->flags |= CLEAVE_FORK_PAUSED;
        return true;
    case CLOCK:
        o->flags |= CLEAVE_FORK_CLOCK;
        return true;
    case LIMIT:
        return parse_limit(run, optarg);
    case DATA:
        o->data = optarg;
        return true;
    case DATA_DIR:
        o->data_dir = optarg;
        return true;
    case ANY:
        o->any = true;
        return true;
    case ALL:
        o->any = false;
        return true;
    case TIMEOUT:
        return parse_timeout(run, optarg);
    case CHILDREN:
        o->children = true;
        return true;
    case DRY_RUN:
        o->dry_run = true;
        return true;
    case ONCE:
        o->once = true;
        return true;
    case 'o':
        o->output = optarg;
        return true;
    case LIVE:
        o->live = true;
        return true;
    case SVG:
        o->svg = optarg;
        return true;
    case TABLE:
        o->table = true;
        return true;
    default:
        return take_create(run, option);
    }
}

static bool check_arguments(struct run *run)
{
    const struct command *command = run->command;
    const struct options *o = &run->options;
    if (run->target_count < command->least) {
        return refuse(run, "it takes ", command->usage);
    }
    if (command->most >= 0 && run->target_count > command->most) {
        return refuse(run, "one argument too many: ", run->targets[command->most]);
    }
    if (command->perform == run_create && o->kernel == NULL) {
        return refuse(run, "it takes ", command->usage);
    }
    if (command->perform == run_console && o->json && !o->once) {
        return refuse(run, "--json goes with --once", "");
    }
    if (command->perform == run_dump && (o->output == NULL || o->output[0] == '\0')) {
        return refuse(run, "it takes -o FILE", "");
    }
    if (o->follow && o->json) {
        return refuse(run, "--follow goes without --json", "");
    }
    if (o->output != NULL && o->json && strcmp(o->output, "-") == 0) {
        return refuse(run, "--json goes with a file, not with standard output", "");
    }
    if (o->data_dir != NULL && (o->data != NULL || o->count != 0)) {
        return refuse(run, "--data-dir goes without --data and --count", "");
    }
    if ((o->flags & CLEAVE_FORK_CLOCK) && !(o->flags & CLEAVE_FORK_PAUSED)) {
        return refuse(run, "--clock goes with --paused", "");
    }
    return true;
}

static const char *name_of(int option)
{
    unsigned i = 0;
    while (table[i].val != option) {
        i++;
    }
    return table[i].name;
}

bool options_parse(struct run *run, int argc, char **argv)
{
    int option;
    run->options.timeout = -1;
    run->options.delay = 2000;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":n:o:d:fh", table, NULL)) != -1) {
        if (option == 'h') {
            usage_print(stdout, run->command);
            return false;
        }
        if (option == ':') {
            return refuse(run, "a value is missing for ", argv[optind - 1]);
        }
        if (option == '?') {
            return refuse(run, "there is no option ", argv[optind - 1]);
        }
        if (option == JSON) {
            run->options.json = true;
        } else if (!(run->command->options & group_of(option))) {
            return refuse(run, "it does not take --", name_of(option));
        } else if (!take(run, option)) {
            return false;
        }
    }
    run->targets = argv + optind;
    run->target_count = argc - optind;
    return check_arguments(run);
}
