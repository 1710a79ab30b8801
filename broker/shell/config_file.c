/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Reads treadled.conf. libconfuse reads each statement (`name = value`); what it would take
 * silently, or end the process for, is found before it is called: it stops at the first mistake,
 * counts lines wrong after a C comment, keeps its lexer's state after an open string, expands
 * ${NAME}, skips characters it does not know, takes the next key for a missing value, and exits
 * when it cannot read.
 */
#define _GNU_SOURCE

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/shell/config.h"
#include "common/base/assert.h"

#define QUOTED_SIZE    80
#define LIST_LINES_MAX 256U
/* Nobody reads more, and a reload must not keep the loop from its work. */
#define MISTAKES_MAX 256U

struct statement {
    char *text; /* without comments */
    size_t size;
    uint32_t line;
    uint32_t assign_count; /* '=' outside strings */
    bool has_brace;
    bool is_bad; /* a mistake of it was told */
};

struct scan {
    char *text; /* comments become spaces */
    size_t size;
    size_t at;
    uint32_t line;
    struct config_mistakes *mistakes;

    /* Of the statement being read. */
    struct statement statement;
    bool has_begun;
    uint32_t depth;
    uint32_t brace_line;
    size_t brace_at;
};

/* What the functions that libconfuse calls back know; it hands them no pointer of ours. */
struct reading {
    struct config *config;
    struct config_mistakes *mistakes;
    struct statement *statement;
    uint32_t value_count;
};
static _Thread_local struct reading *reading;

/* ---- the text ---- */

static void add_mistake(struct scan *scan, uint32_t line, const char *text)
{
    if (!scan->statement.is_bad) {
        config_add_mistake(scan->mistakes, line, "%s", text);
    }
    scan->statement.is_bad = true;
}

static bool is_at_token_start(const struct scan *scan)
{
    return scan->at == 0 || strchr(" \t\n={},", scan->text[scan->at - 1]) != NULL;
}

/* The text ends in a NUL. */
static char following(const struct scan *scan)
{
    return scan->text[scan->at < scan->size ? scan->at + 1 : scan->size];
}

/* True, and past it, if a comment begins here. */
static bool skip_comment(struct scan *scan)
{
    char *text = scan->text;
    const bool is_slash = text[scan->at] == '/' && is_at_token_start(scan);
    if (text[scan->at] == '#' || (is_slash && following(scan) == '/')) {
        for (; scan->at < scan->size && text[scan->at] != '\n'; scan->at++) {
            text[scan->at] = ' ';
        }
        return true;
    }
    if (!is_slash || following(scan) != '*') {
        return false;
    }
    const uint32_t line = scan->line;
    for (; scan->at < scan->size; scan->at++) {
        if (text[scan->at] == '*' && following(scan) == '/') {
            text[scan->at] = ' ';
            text[scan->at + 1] = ' ';
            scan->at += 2;
            return true;
        }
        if (text[scan->at] == '\n') {
            scan->line++; /* a statement may not go on over it, as over any end of line */
        } else {
            text[scan->at] = ' ';
        }
    }
    add_mistake(scan, line, "a comment is not closed; expected */ at its end");
    return true;
}

/* From the opening quote to behind the closing one. */
static void skip_string(struct scan *scan)
{
    const char quote = scan->text[scan->at];
    for (scan->at++; scan->at < scan->size && scan->text[scan->at] != '\n'; scan->at++) {
        const char letter = scan->text[scan->at];
        if (letter == quote) {
            scan->at++;
            return;
        }
        if (letter == '\\' && (following(scan) == quote || following(scan) == '\\')) {
            scan->at++;
        } else if (letter == '\\' && quote == '"') {
            add_mistake(scan, scan->line,
                        "a backslash in a string; expected \\\\ or \\\" for one of these");
        } else if (letter == '$' && following(scan) == '{' && quote == '"') {
            add_mistake(scan, scan->line,
                        "${...} is not expanded; expected the value itself, or single quotes");
        } else if (((unsigned char)letter < ' ' && letter != '\t') || letter == 0x7f) {
            add_mistake(scan, scan->line, "a control character in a string; expected text");
        }
    }
    add_mistake(scan, scan->line,
                "a string is not closed; expected its second quote on the same line");
}

static bool is_plain(char letter)
{
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9') || strchr("_.:/-[]", letter) != NULL;
}

static void begin(struct scan *scan)
{
    if (!scan->has_begun) {
        scan->has_begun = true;
        scan->statement.text = scan->text + scan->at;
        scan->statement.line = scan->line;
    }
}

static void take_mark(struct scan *scan)
{
    switch (scan->text[scan->at]) {
    case '{':
        scan->statement.has_brace = true;
        if (scan->depth == 0) {
            scan->brace_line = scan->line;
            scan->brace_at = scan->at;
        }
        scan->depth++;
        break;
    case '}':
        scan->depth -= scan->depth > 0 ? 1 : 0;
        break;
    case '=':
        scan->statement.assign_count++;
        break;
    default:
        break;
    }
    scan->at++;
}

static void take_letter(struct scan *scan)
{
    const char letter = scan->text[scan->at];
    char quoted[QUOTED_SIZE];
    begin(scan);
    if (letter == '"' || letter == '\'') {
        skip_string(scan);
        return;
    }
    if (strchr("{}=,", letter) != NULL) {
        take_mark(scan);
        return;
    }
    if (!is_plain(letter) && !scan->statement.is_bad) {
        config_add_mistake(scan->mistakes, scan->line,
                           "unexpected character %s; expected NAME = VALUE, with the value in "
                           "double quotes",
                           log_quote(quoted, sizeof quoted, &letter, 1));
        scan->statement.is_bad = true;
    }
    scan->at++;
}

/* To the start of the next line. */
static void skip_line(struct scan *scan)
{
    const char *end = memchr(scan->text + scan->at, '\n', scan->size - scan->at);
    scan->at = end == NULL ? scan->size : (size_t)(end - scan->text) + 1;
    scan->line++;
}

/* The list that was opened is never closed: what follows it is read on its own. */
static void give_brace_up(struct scan *scan)
{
    scan->statement.is_bad = false;
    add_mistake(scan, scan->brace_line, "a list is not closed; expected } at its end");
    scan->at = scan->brace_at;
    scan->line = scan->brace_line;
    do {
        skip_line(scan);
        const size_t blank = strspn(scan->text + scan->at, " \t\r");
        if (scan->at + blank >= scan->size ||
            strchr("\"'}", scan->text[scan->at + blank]) == NULL) {
            return;
        }
    } while (scan->at < scan->size); /* its elements */
}

/* The next setting begins in the list, or it goes on for too long. */
static bool is_never_closed(const struct scan *scan, char letter)
{
    return scan->depth > 0 && ((letter == '=' && scan->line > scan->brace_line) ||
                               scan->line > scan->brace_line + LIST_LINES_MAX);
}

/* False: there are no more. */
static bool next_statement(struct scan *scan)
{
    scan->statement = (struct statement){.text = NULL};
    scan->has_begun = false;
    scan->depth = 0;
    while (scan->at < scan->size) {
        const char letter = scan->text[scan->at];
        if (letter == '\n') {
            if (scan->has_begun && scan->depth == 0) {
                break;
            }
            scan->line++;
            scan->at++;
        } else if (letter == ' ' || letter == '\t' || letter == '\r') {
            scan->text[scan->at] = ' ';
            scan->at++;
        } else if (is_never_closed(scan, letter)) {
            break;
        } else if (!skip_comment(scan)) {
            take_letter(scan);
        }
    }
    const bool has_begun = scan->has_begun;
    if (scan->depth > 0) {
        give_brace_up(scan);
    } else if (has_begun) {
        scan->statement.size = (size_t)(scan->text + scan->at - scan->statement.text);
    }
    return has_begun;
}

/* ---- a statement ---- */

static size_t name_size(const struct statement *statement)
{
    return strcspn(statement->text, " \n={},\"'");
}

static uint32_t line_of(cfg_t *cfg)
{
    return reading->statement->line + (uint32_t)cfg->line - 1;
}

static void tell(uint32_t line, const char *text)
{
    if (!reading->statement->is_bad) {
        config_add_mistake(reading->mistakes, line, "%s", text);
    }
    reading->statement->is_bad = true;
}

static void tell_of_unknown(const char *name)
{
    char quoted[QUOTED_SIZE];
    char text[CONFIG_TEXT_SIZE];
    const size_t size = strlen(name);
    const char *guess = config_key_guess(name, size);
    const char *shown = log_quote(quoted, sizeof quoted, name, size);
    if (guess != NULL) {
        (void)snprintf(text, sizeof text, "%s: no such key; did you mean %s?", shown, guess);
    } else {
        (void)snprintf(text, sizeof text, "%s: no such key; expected one of treadled.conf(5)",
                       shown);
    }
    tell(reading->statement->line, text);
}

/* A statement of one key, whose form is wrong. */
static void tell_of_form(void)
{
    const struct statement *statement = reading->statement;
    const size_t size = name_size(statement);
    const enum config_key key = config_key_find(statement->text, size);
    char expected[CONFIG_TEXT_SIZE / 2];
    char text[CONFIG_TEXT_SIZE];
    char name[QUOTED_SIZE];
    const char *what = "a value that is not understood";
    if (key == CONFIG_KEY_COUNT) {
        tell(statement->line, "not a setting; expected NAME = VALUE");
        return;
    }
    (void)snprintf(name, sizeof name, "%s", config_key_name(key));
    if (reading->value_count > 0 && !config_key_is_list(key)) {
        (void)snprintf(text, sizeof text, "%s: more behind its value; expected one setting a line",
                       name);
        tell(statement->line, text);
        return;
    }
    if (statement->assign_count == 0) {
        (void)snprintf(text, sizeof text, "%s: no '='; expected %s = VALUE", name, name);
        tell(statement->line, text);
        return;
    }
    if (strcspn(statement->text, "=") + 1 + strspn(strchr(statement->text, '=') + 1, " \n") ==
        statement->size) {
        what = "no value";
    } else if (statement->has_brace && !config_key_is_list(key)) {
        what = "a list";
    }
    config_print_expected(key, expected, sizeof expected);
    (void)snprintf(text, sizeof text, "%s: %s; expected %s", name, what, expected);
    tell(statement->line, text);
}

static void on_error(cfg_t *cfg, const char *format, va_list arguments)
{
    static const char no_such[] = "no such option";
    (void)cfg;
    if (strncmp(format, no_such, sizeof no_such - 1) == 0) {
        tell_of_unknown(va_arg(arguments, const char *));
    } else {
        tell_of_form();
    }
}

/* libconfuse copies what *result points to. */
static int on_value(cfg_t *cfg, cfg_opt_t *option, const char *value, void *result)
{
    char why[CONFIG_TEXT_SIZE];
    struct config *config = reading->config;
    const enum config_key key = config_key_find(option->name, strlen(option->name));
    TREADLE_ASSERT(key < CONFIG_KEY_COUNT);
    const char **kept = result;
    *kept = value;
    if (config->line[key] != CONFIG_LINE_DEFAULT && reading->value_count == 0) {
        (void)snprintf(why, sizeof why, "%s stands in line %u already; expected it once",
                       option->name, config->line[key]);
        tell(reading->statement->line, why);
        return 0;
    }
    reading->value_count++;
    if (!config_set(config, key, value, line_of(cfg), why)) {
        config->line[key] = reading->statement->line;
        config_add_mistake(reading->mistakes, line_of(cfg), "%s", why);
        reading->statement->is_bad = true;
    }
    return 0;
}

/* NULL: no memory. */
static cfg_t *open_reader(void)
{
    cfg_opt_t options[CONFIG_KEY_COUNT + 1] = {CFG_END()};
    for (int key = 0; key < CONFIG_KEY_COUNT; key++) {
        const char *name = config_key_name((enum config_key)key);
        const cfg_opt_t one = CFG_STR_CB(name, NULL, CFGF_NODEFAULT, on_value);
        const cfg_opt_t many = CFG_STR_LIST_CB(name, NULL, CFGF_NODEFAULT, on_value);
        options[key] = config_key_is_list((enum config_key)key) ? many : one;
    }
    options[CONFIG_KEY_COUNT] = (cfg_opt_t)CFG_END();
    cfg_t *cfg = cfg_init(options, CFGF_NONE);
    if (cfg != NULL) {
        (void)cfg_set_error_function(cfg, on_error);
    }
    return cfg;
}

static void read_statement(cfg_t *cfg, struct config *config, struct config_mistakes *mistakes,
                           struct statement *statement)
{
    struct reading here = {.config = config, .mistakes = mistakes, .statement = statement};
    reading = &here;
    if (statement->assign_count > 1) {
        tell(statement->line, "two settings in one line; expected one a line");
    } else if (cfg_parse_buf(cfg, statement->text) != CFG_SUCCESS) {
        tell_of_form(); /* if nobody has said why */
    }
    const enum config_key key = config_key_find(statement->text, name_size(statement));
    if (!statement->is_bad && here.value_count == 0 && key != CONFIG_KEY_COUNT) {
        char expected[CONFIG_TEXT_SIZE / 2];
        config_print_expected(key, expected, sizeof expected);
        config_add_mistake(mistakes, statement->line, "%s: an empty list; expected %s",
                           config_key_name(key), expected);
    }
    reading = NULL;
}

/* ---- the file ---- */

/* The text, allocated, with a NUL behind it; NULL: *mistakes says why. */
static char *load(const char *path, size_t *size, struct config_mistakes *mistakes)
{
    struct stat state;
    char *text = NULL;
    ssize_t got = -1;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd == -1 || fstat(fd, &state) == -1) {
        config_add_mistake(mistakes, 0, "cannot be read: %s; expected a file of NAME = VALUE lines",
                           strerrordesc_np(errno));
        goto cleanup;
    }
    if (!S_ISREG(state.st_mode)) {
        config_add_mistake(mistakes, 0, "%s; expected a file of NAME = VALUE lines",
                           S_ISDIR(state.st_mode) ? "is a directory" : "is not a regular file");
        goto cleanup;
    }
    if (state.st_size > CONFIG_FILE_SIZE_MAX) {
        config_add_mistake(mistakes, 0, "is too large; expected at most 1MiB");
        goto cleanup;
    }
    text = calloc(1, (size_t)state.st_size + 1);
    got = text == NULL ? -1 : pread(fd, text, (size_t)state.st_size, 0);
    if (got == -1) {
        config_add_mistake(mistakes, 0, "cannot be read: %s; expected a file of NAME = VALUE lines",
                           strerrordesc_np(errno));
        free(text);
        text = NULL;
        goto cleanup;
    }
    *size = (size_t)got;
cleanup:
    if (fd != -1) {
        (void)close(fd);
    }
    return text;
}

static uint32_t line_at(const char *text, const char *at)
{
    uint32_t line = 1;
    for (; text < at; text++) {
        line += *text == '\n' ? 1 : 0;
    }
    return line;
}

static void read_text(struct config *config, struct scan *scan)
{
    struct config_mistakes *mistakes = scan->mistakes;
    cfg_t *cfg = open_reader();
    if (cfg == NULL) {
        config_add_mistake(mistakes, 0, "cannot be read: no memory; expected some");
        return;
    }
    while (mistakes->count < MISTAKES_MAX && next_statement(scan)) {
        if (!scan->statement.is_bad) {
            char *end = scan->statement.text + scan->statement.size;
            const char saved = *end;
            *end = '\0';
            read_statement(cfg, config, mistakes, &scan->statement);
            *end = saved;
        }
    }
    (void)cfg_free(cfg);
}

void config_read_file(struct config *config, const char *path, struct config_mistakes *mistakes)
{
    size_t size = 0;
    char *text = load(path, &size, mistakes);
    if (text == NULL) {
        return;
    }
    const char *nul = memchr(text, '\0', size);
    if (nul != NULL) {
        config_add_mistake(mistakes, line_at(text, nul), "a zero byte; expected a text file");
    } else {
        struct scan scan = {.text = text, .size = size, .line = 1, .mistakes = mistakes};
        read_text(config, &scan);
    }
    free(text);
}
