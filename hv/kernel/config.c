/* SPDX-License-Identifier: BSD-2-Clause */
/* Parses the boot configuration; see config.h. Knows nothing of the machine. */
#include "config.h"

#define VCPUS_MAX 8u /* CLEAVE_VCPUS_MAX */

/* What is left of one line. */
struct line {
    const char *at, *end;
    struct config_error *error;
    unsigned seen; /* keys, bit by bit: see once() */
};

static bool wrong(struct line *line, const char *what, const char *word)
{
    char *to = line->error->what;
    char *end = to + sizeof(line->error->what) - 1;
    while (to < end && *what != '\0') {
        *to++ = *what++;
    }
    if (word[0] != '\0' && to + 2 < end) {
        *to++ = ':';
        *to++ = ' ';
        while (to < end && *word != '\0') {
            *to++ = *word++;
        }
    }
    *to = '\0';
    return false;
}

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static void skip_blanks(struct line *line)
{
    while (line->at < line->end && blank(*line->at)) {
        line->at++;
    }
    if (line->at < line->end && *line->at == '#') {
        line->at = line->end;
    }
}

static bool same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* The next word up to a blank or `stop`; an empty one at the end of the line. */
static bool word(struct line *line, char stop, char *to, unsigned room)
{
    unsigned n = 0;
    char quote = '\0';

    while (line->at < line->end) {
        char c = *line->at;
        if (quote == '\0' && (blank(c) || c == stop || c == '#')) {
            break;
        }
        line->at++;
        if (c == '"') {
            quote = quote == '\0' ? '"' : '\0';
            continue;
        }
        if (c < ' ' || n == room - 1) {
            to[n] = '\0';
            return wrong(line, c < ' ' ? "not a printable character after" : "too long", to);
        }
        to[n++] = c;
    }
    to[n] = '\0';
    return quote == '\0' || wrong(line, "a quote that does not end", to);
}

static bool number(struct line *line, const char *text, uint64_t *value)
{
    const char *at = text;
    *value = 0;
    do {
        if (*at < '0' || *at > '9') {
            return wrong(line, "not a number", text);
        }
        uint64_t digit = (uint64_t)(*at - '0');
        if (*value > (UINT64_MAX - digit) / 10) {
            return wrong(line, "a number that is too large", text);
        }
        *value = *value * 10 + digit;
        at++;
    } while (*at != '\0' && !(*at >= 'A' && *at <= 'Z'));
    unsigned shift = *at == 'K' ? 10 : *at == 'M' ? 20 : *at == 'G' ? 30 : 0;
    if (*at != '\0' && (shift == 0 || at[1] != '\0')) {
        return wrong(line, "a size ends in K, M or G", text);
    }
    if (shift != 0 && *value > UINT64_MAX >> shift) {
        return wrong(line, "a number that is too large", text);
    }
    *value <<= shift;
    return true;
}

static bool number_in(struct line *line, const char *text, uint64_t low, uint64_t high,
                      uint64_t *value)
{
    return number(line, text, value) &&
           ((*value >= low && *value <= high) || wrong(line, "out of its range", text));
}

/* A size in whole pages. */
static bool pages(struct line *line, const char *text, uint64_t *value)
{
    return number_in(line, text, 4096, UINT64_C(1) << 47, value) &&
           (*value % 4096 == 0 || wrong(line, "not a multiple of 4K", text));
}

/* The next `key` or `key=value`; false at the end of the line or, with the error set, for one that
 * is wrong. */
static bool pair(struct line *line, char key[CONFIG_NAME_SIZE], char value[CONFIG_TEXT_SIZE])
{
    skip_blanks(line);
    if (line->at == line->end || !word(line, '=', key, CONFIG_NAME_SIZE)) {
        return false;
    }
    value[0] = '\0';
    if (line->at < line->end && *line->at == '=') {
        line->at++;
        return word(line, '\0', value, CONFIG_TEXT_SIZE);
    }
    return true;
}

/* A key that the line does not have yet; one that nobody knows is not looked at here. */
static bool once(struct line *line, const char *key)
{
    static const char *const keys[] = {"size",    "pool",  "kernel", "memory", "limit",  "paused",
                                       "command", "order", "vcpus",  "initrd", "control"};
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (same(key, keys[i])) {
            bool again = line->seen >> i & 1;
            line->seen |= 1u << i;
            return !again || wrong(line, "given twice", key);
        }
    }
    return true;
}

static bool copy_name(struct line *line, const char *value, char to[CONFIG_NAME_SIZE])
{
    unsigned i = 0;
    for (; value[i] != '\0'; i++) {
        if (i == CONFIG_NAME_SIZE - 1) {
            return wrong(line, "too long", value);
        }
        to[i] = value[i];
    }
    to[i] = '\0';
    return i > 0 || wrong(line, "a name is missing", "");
}

static bool pool_line(struct line *line, struct config *config)
{
    char key[CONFIG_NAME_SIZE], value[CONFIG_TEXT_SIZE];
    struct config_pool *pool = &config->pool[config->pools];

    if (config->pools == CONFIG_POOLS_MAX) {
        return wrong(line, "more pools than there may be", "");
    }
    *pool = (struct config_pool){.size = UINT64_MAX};
    skip_blanks(line);
    if (!word(line, '\0', value, sizeof(value)) || !copy_name(line, value, pool->name)) {
        return false;
    }
    for (unsigned i = 0; i < config->pools; i++) {
        if (same(config->pool[i].name, pool->name)) {
            return wrong(line, "this pool is there already", pool->name);
        }
    }
    while (pair(line, key, value)) {
        if (!same(key, "size")) {
            return wrong(line, "unknown word for a pool", key);
        }
        if (same(value, "all")) {
            pool->size = 0;
        } else if (!pages(line, value, &pool->size)) {
            return false;
        }
        if (!once(line, key)) {
            return false;
        }
    }
    if (line->error->what[0] != '\0') {
        return false;
    }
    if (pool->size == UINT64_MAX) {
        return wrong(line, "a pool needs size=", pool->name);
    }
    config->pools++;
    return true;
}

static bool domain_word(struct line *line, struct config_domain *domain, const char *key,
                        const char *value)
{
    uint64_t n = 0;
    if (same(key, "pool")) {
        return copy_name(line, value, domain->pool);
    }
    if (same(key, "kernel")) {
        return copy_name(line, value, domain->kernel);
    }
    if (same(key, "initrd")) {
        return copy_name(line, value, domain->initrd);
    }
    if (same(key, "memory")) {
        return pages(line, value, &domain->memory);
    }
    if (same(key, "limit")) {
        return pages(line, value, &domain->limit);
    }
    if (same(key, "paused")) {
        domain->paused = true;
        return value[0] == '\0' || wrong(line, "paused has no value", value);
    }
    if (same(key, "control")) {
        domain->control = true;
        return value[0] == '\0' || wrong(line, "control has no value", value);
    }
    if (same(key, "command")) {
        __builtin_memcpy(domain->command, value, CONFIG_TEXT_SIZE);
        return true;
    }
    if (same(key, "order") && number_in(line, value, 0, 2, &n)) {
        domain->order = (unsigned)n;
        return true;
    }
    if (same(key, "vcpus") && number_in(line, value, 1, VCPUS_MAX, &n)) {
        domain->vcpus = (unsigned)n;
        return true;
    }
    return line->error->what[0] == '\0' ? wrong(line, "unknown word for a domain", key) : false;
}

static bool domain_line(struct line *line, struct config *config)
{
    char key[CONFIG_NAME_SIZE], value[CONFIG_TEXT_SIZE];
    struct config_domain *domain = &config->domain[config->domains];
    bool pool = false;

    if (config->domains == CONFIG_DOMAINS_MAX) {
        return wrong(line, "more domains than there may be", "");
    }
    *domain = (struct config_domain){.limit = UINT64_MAX, .order = 1, .vcpus = 1};
    skip_blanks(line);
    if (!word(line, '\0', value, sizeof(value)) || !copy_name(line, value, domain->name)) {
        return false;
    }
    for (unsigned i = 0; i < config->domains; i++) {
        if (same(config->domain[i].name, domain->name)) {
            return wrong(line, "this domain is there already", domain->name);
        }
    }
    while (pair(line, key, value)) {
        if (!domain_word(line, domain, key, value) || !once(line, key)) {
            return false;
        }
    }
    if (line->error->what[0] != '\0') {
        return false;
    }
    for (unsigned i = 0; i < config->domains && domain->control; i++) {
        if (config->domain[i].control) {
            return wrong(line, "there is a control domain already", config->domain[i].name);
        }
    }
    for (unsigned i = 0; i < config->pools; i++) {
        pool |= same(config->pool[i].name, domain->pool);
    }
    if (!pool) {
        return wrong(line, "a domain needs pool= of a pool above it", domain->pool);
    }
    if (domain->kernel[0] == '\0' || domain->memory == 0) {
        return wrong(line, "a domain needs kernel= and memory=", domain->name);
    }
    config->domains++;
    return true;
}

static bool option_line(struct line *line, struct config *config)
{
    char key[CONFIG_NAME_SIZE], value[CONFIG_TEXT_SIZE];
    while (pair(line, key, value)) {
        bool *word = same(key, "stop")       ? &config->stop
                     : same(key, "terminal") ? &config->terminal
                                             : NULL;
        char *name = same(key, "console")  ? config->console
                     : same(key, "input")  ? config->input
                     : same(key, "script") ? config->script
                                           : NULL;
        bool top = same(key, "top");
        if (word != NULL ? value[0] != '\0' : !top && name == NULL) {
            return wrong(line, "unknown option", key);
        }
        if (word != NULL ? *word : top ? config->top != 0 : name[0] != '\0') {
            return wrong(line, "given twice", key);
        }
        if (word != NULL) {
            *word = true;
        } else if (top ? !number_in(line, value, 1, 3600, &config->top)
                       : !copy_name(line, value, name)) {
            return false;
        }
    }
    return line->error->what[0] == '\0';
}

static bool parse_line(struct line *line, struct config *config)
{
    char kind[CONFIG_NAME_SIZE];
    skip_blanks(line);
    if (line->at == line->end) {
        return true;
    }
    if (!word(line, '\0', kind, sizeof(kind))) {
        return false;
    }
    if (same(kind, "pool")) {
        return pool_line(line, config);
    }
    if (same(kind, "domain")) {
        return domain_line(line, config);
    }
    if (same(kind, "option")) {
        return option_line(line, config);
    }
    return wrong(line, "a line begins with pool, domain or option, not", kind);
}

bool config_parse(const char *text, uint64_t size, struct config *config,
                  struct config_error *error)
{
    const char *end = text + size;

    config->pools = config->domains = 0;
    config->stop = config->terminal = false;
    config->top = 0;
    config->console[0] = config->input[0] = config->script[0] = '\0';
    error->what[0] = '\0';
    for (error->line = 1; text < end; error->line++) {
        struct line line = {.at = text, .error = error};
        while (text < end && *text != '\n' && *text != '\0') {
            text++;
        }
        line.end = text;
        if (!parse_line(&line, config)) {
            return false;
        }
        text = text < end && *text == '\n' ? text + 1 : end;
    }
    return true;
}
