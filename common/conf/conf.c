/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "common/conf/conf.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"

#define QUOTED_SIZE 80
#define GUESS_SIZE  64 /* bytes of a name that is compared */
#define GUESS_MAX   3  /* letters that may differ from the name that was meant */

enum token_kind {
    TOKEN_END,
    TOKEN_WORD, /* plain or quoted */
    TOKEN_EQUALS,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_COMMA,
};

struct token {
    enum token_kind kind;
    uint32_t line;
    const char *text;
    size_t size;
};

struct scan {
    char *text; /* comments become spaces: libconfuse takes none within a list */
    size_t size;
    size_t at; /* behind `token` */
    uint32_t line;
    struct token token; /* the next one */
    const struct conf_reader *reader;
    struct conf_mistakes *mistakes;
    uint32_t section_line; /* 0: in no section */
};

/* What the functions that libconfuse calls back know; it hands them no pointer of ours. */
struct values {
    char *texts[CONF_VALUES_MAX];
    size_t count;
    bool is_bad;
};
static _Thread_local struct values *values;

void conf_add_mistake(struct conf_mistakes *mistakes, uint32_t line, const char *format, ...)
{
    if (mistakes->count < CONF_MISTAKES_MAX) {
        struct conf_mistake *mistake = &mistakes->at[mistakes->count];
        va_list arguments;
        mistake->line = line;
        va_start(arguments, format);
        /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
        (void)vsnprintf(mistake->text, sizeof(mistake->text), format, arguments);
        va_end(arguments);
    }
    mistakes->count++;
}

/* ---- tokens ---- */

static char letter_at(const struct scan *scan, size_t at)
{
    return scan->text[at < scan->size ? at : scan->size]; /* a NUL stands behind the text */
}

static void skip_line(struct scan *scan)
{
    while (scan->at < scan->size && scan->text[scan->at] != '\n') {
        scan->text[scan->at++] = ' ';
    }
}

static void skip_block_comment(struct scan *scan)
{
    const char *end = strstr(scan->text + scan->at + 2, "*/");
    const size_t end_at = end == NULL ? scan->size : (size_t)(end - scan->text) + 2;
    if (end == NULL) {
        conf_add_mistake(scan->mistakes, scan->line,
                         "a comment is not closed; expected */ at its end");
    }
    for (; scan->at < end_at; scan->at++) {
        if (scan->text[scan->at] == '\n') {
            scan->line++;
        } else {
            scan->text[scan->at] = ' ';
        }
    }
}

static void skip_blank(struct scan *scan)
{
    while (scan->at < scan->size) {
        const char letter = scan->text[scan->at];
        const char next = letter_at(scan, scan->at + 1);
        if (letter == '\n') {
            scan->line++;
            scan->at++;
        } else if (letter == ' ' || letter == '\t' || letter == '\r') {
            scan->at++;
        } else if (letter == '#' || (letter == '/' && next == '/')) {
            skip_line(scan);
        } else if (letter == '/' && next == '*') {
            skip_block_comment(scan);
        } else {
            return;
        }
    }
}

/* What libconfuse would read in another way than a person means it; NULL: nothing. */
static const char *wrong_in_string(const struct scan *scan, char quote)
{
    const char letter = scan->text[scan->at];
    const char next = letter_at(scan, scan->at + 1);
    if (quote == '"' && letter == '$' && next == '{') {
        return "${...} is not expanded; expected the value itself, or single quotes";
    }
    if (quote == '"' && letter == '\\' && (next == '\0' || strchr("\\\"nt", next) == NULL)) {
        return "a backslash in double quotes; expected \\\\, \\\", \\n or \\t, or single quotes";
    }
    if (((unsigned char)letter < ' ' && letter != '\t') || letter == 0x7f) {
        return "a control character in a string; expected text";
    }
    return NULL;
}

/* From the opening quote to behind the closing one. */
static void skip_string(struct scan *scan)
{
    const char quote = scan->text[scan->at];
    bool is_told = false;
    for (scan->at++; scan->at < scan->size && scan->text[scan->at] != '\n'; scan->at++) {
        const char letter = scan->text[scan->at];
        const char *wrong = wrong_in_string(scan, quote);
        if (letter == quote) {
            scan->at++;
            return;
        }
        if (wrong != NULL && !is_told) {
            conf_add_mistake(scan->mistakes, scan->line, "%s", wrong);
            is_told = true;
        }
        if (letter == '\\' && letter_at(scan, scan->at + 1) != '\n') {
            scan->at++;
        }
    }
    conf_add_mistake(scan->mistakes, scan->line,
                     "a string is not closed; expected its second quote on the same line");
}

static bool is_plain(char letter)
{
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9') || (letter != '\0' && strchr("_.:/-", letter) != NULL);
}

static enum token_kind mark_kind(char letter)
{
    switch (letter) {
    case '=':
        return TOKEN_EQUALS;
    case '{':
        return TOKEN_OPEN;
    case '}':
        return TOKEN_CLOSE;
    case ',':
        return TOKEN_COMMA;
    default:
        return TOKEN_WORD;
    }
}

/* Past characters that belong to nothing, which are told once for each run of them. */
static void skip_unexpected(struct scan *scan)
{
    bool is_told = false;
    char quoted[QUOTED_SIZE];
    skip_blank(scan);
    while (scan->at < scan->size) {
        const char letter = scan->text[scan->at];
        if (is_plain(letter) || letter == '"' || letter == '\'' ||
            mark_kind(letter) != TOKEN_WORD) {
            return;
        }
        if (!is_told) {
            conf_add_mistake(scan->mistakes, scan->line,
                             "unexpected character %s; expected NAME = VALUE, with the value in "
                             "quotes",
                             log_quote(quoted, sizeof(quoted), &letter, 1));
        }
        is_told = true;
        scan->at++;
        skip_blank(scan);
    }
}

/* Makes the next token the current one. */
static void advance(struct scan *scan)
{
    skip_unexpected(scan);
    struct token *token = &scan->token;
    *token = (struct token){.kind = TOKEN_END, .line = scan->line, .text = scan->text + scan->at};
    if (scan->at == scan->size) {
        return;
    }
    const size_t start = scan->at;
    const char letter = scan->text[start];
    token->kind = mark_kind(letter);
    if (token->kind != TOKEN_WORD) {
        scan->at++;
    } else if (letter == '"' || letter == '\'') {
        skip_string(scan);
    } else {
        while (is_plain(letter_at(scan, scan->at))) {
            scan->at++;
        }
    }
    token->size = scan->at - start;
}

/* ---- values ---- */

/* libconfuse copies what *result points to. */
static int on_value(cfg_t *cfg, cfg_opt_t *option, const char *value, void *result)
{
    const char **kept = result;
    (void)cfg;
    (void)option;
    *kept = value;
    if (values->count == CONF_VALUES_MAX ||
        (values->texts[values->count] = strdup(value)) == NULL) {
        values->is_bad = true;
        return 0;
    }
    values->count++;
    return 0;
}

static void on_error(cfg_t *cfg, const char *format, va_list arguments)
{
    (void)cfg;
    (void)format;
    (void)arguments;
    values->is_bad = true;
}

/* Has libconfuse read `text`, which is VALUE or {VALUE, ...}, into `read`. */
static void read_values(struct values *read, const char *text, size_t size, bool is_list)
{
    cfg_opt_t one[] = {CFG_STR_CB("it", NULL, CFGF_NODEFAULT, on_value), CFG_END()};
    cfg_opt_t many[] = {CFG_STR_LIST_CB("it", NULL, CFGF_NODEFAULT, on_value), CFG_END()};
    char *statement = NULL;
    values = read;
    cfg_t *cfg = cfg_init(is_list ? many : one, CFGF_NONE);
    if (cfg == NULL || asprintf(&statement, "it = %.*s\n", (int)size, text) == -1) {
        statement = NULL;
        read->is_bad = true;
    } else {
        (void)cfg_set_error_function(cfg, on_error);
        read->is_bad = cfg_parse_buf(cfg, statement) != CFG_SUCCESS || read->is_bad;
    }
    free(statement);
    if (cfg != NULL) {
        (void)cfg_free(cfg);
    }
    values = NULL;
}

static void free_values(struct values *read)
{
    while (read->count > 0) {
        free(read->texts[--read->count]);
    }
}

/* ---- statements ---- */

static void read_setting(struct scan *scan, const struct token *name, const char *text, size_t size,
                         bool is_list)
{
    struct values read = {.count = 0};
    char *key = strndup(name->text, name->size);
    read_values(&read, text, size, is_list);
    if (key == NULL || read.is_bad || (!is_list && read.count != 1)) {
        conf_add_mistake(scan->mistakes, name->line,
                         "%s: a value that is not understood; expected "
                         "a word, a string or a list of them",
                         key == NULL ? "" : key);
    } else {
        const struct conf_setting setting = {
            .line = name->line,
            .name = key,
            .is_list = is_list,
            .values = (const char *const *)read.texts,
            .value_count = read.count,
        };
        scan->reader->on_setting(scan->reader->context, &setting);
    }
    free_values(&read);
    free(key);
}

/* From the opening brace to behind the closing one. False: it was told what is wrong. */
static bool skip_list(struct scan *scan)
{
    const uint32_t line = scan->token.line;
    bool wants_value = true;
    bool is_empty = true;
    advance(scan);
    for (;;) {
        const struct token *token = &scan->token;
        if (token->kind == TOKEN_CLOSE) {
            if (wants_value && !is_empty) {
                conf_add_mistake(scan->mistakes, token->line,
                                 "a comma at the end of a list; expected a value behind it");
            }
            return true;
        }
        is_empty = false;
        if (token->kind == TOKEN_END || token->kind == TOKEN_EQUALS || token->kind == TOKEN_OPEN ||
            (token->kind == TOKEN_WORD && !wants_value && token->line > line)) {
            conf_add_mistake(scan->mistakes, line, "a list is not closed; expected } at its end");
            return false;
        }
        if ((token->kind == TOKEN_WORD) != wants_value) {
            conf_add_mistake(scan->mistakes, token->line,
                             wants_value ? "two commas in a row; expected a value between them"
                                         : "two values without a comma; expected one between them");
            wants_value = token->kind != TOKEN_WORD;
        } else {
            wants_value = !wants_value;
        }
        advance(scan);
    }
}

static void tell_no_value(struct scan *scan, const struct token *name)
{
    conf_add_mistake(scan->mistakes, name->line, "%.*s: no value; expected one behind the =",
                     (int)(name->size < QUOTED_SIZE ? name->size : QUOTED_SIZE), name->text);
}

/* At the '=' behind NAME: the value. */
static void scan_value(struct scan *scan, const struct token *name)
{
    const uint32_t mistakes_before = scan->mistakes->count;
    const uint32_t line = scan->token.line;
    advance(scan);
    const struct token value = scan->token;
    const bool is_list = value.kind == TOKEN_OPEN;
    if (value.line > line) { /* it is the next statement's */
        tell_no_value(scan, name);
        return;
    }
    if (is_list && !skip_list(scan)) {
        return;
    }
    const char *end = scan->text + scan->at;
    if (value.kind == TOKEN_WORD || is_list) {
        advance(scan);
    }
    if (value.kind != TOKEN_WORD && !is_list) {
        tell_no_value(scan, name);
        return;
    }
    if (scan->mistakes->count == mistakes_before) {
        read_setting(scan, name, value.text, (size_t)(end - value.text), is_list);
    }
}

static void end_section(struct scan *scan)
{
    scan->section_line = 0;
    scan->reader->on_section_end(scan->reader->context);
}

/* After NAME and maybe a title, at the opening brace. */
static void scan_section(struct scan *scan, const struct token *name, const struct token *title)
{
    struct values read = {.count = 0};
    char *key = strndup(name->text, name->size);
    if (scan->section_line != 0) {
        conf_add_mistake(scan->mistakes, scan->section_line,
                         "a section is not closed; expected } before line %u", name->line);
        end_section(scan);
    }
    if (title->size > 0) {
        read_values(&read, title->text, title->size, false);
    }
    if (key == NULL || read.is_bad) {
        conf_add_mistake(scan->mistakes, name->line,
                         "a title that is not understood; expected "
                         "NAME \"TITLE\" {");
    }
    scan->section_line = name->line;
    scan->reader->on_section(scan->reader->context, name->line, key == NULL ? "" : key,
                             read.count > 0 ? read.texts[0] : "");
    free_values(&read);
    free(key);
    advance(scan);
}

static void scan_statement(struct scan *scan)
{
    const struct token name = scan->token;
    struct token title = {.size = 0};
    advance(scan);
    if (scan->token.kind == TOKEN_EQUALS) {
        scan_value(scan, &name);
        return;
    }
    if (scan->token.kind == TOKEN_WORD && scan->token.line == name.line) {
        title = scan->token;
        advance(scan);
    }
    if (scan->token.kind == TOKEN_OPEN) {
        scan_section(scan, &name, &title);
        return;
    }
    conf_add_mistake(scan->mistakes, name.line,
                     "%.*s: neither a setting nor a section; expected NAME = VALUE or NAME "
                     "\"TITLE\" { ... }",
                     (int)(name.size < QUOTED_SIZE ? name.size : QUOTED_SIZE), name.text);
    while (scan->token.kind != TOKEN_END && scan->token.kind != TOKEN_CLOSE &&
           scan->token.line == name.line) {
        advance(scan);
    }
}

static void scan_all(struct scan *scan)
{
    advance(scan);
    while (scan->token.kind != TOKEN_END) {
        if (scan->token.kind == TOKEN_WORD) {
            scan_statement(scan);
        } else if (scan->token.kind == TOKEN_CLOSE && scan->section_line != 0) {
            end_section(scan);
            advance(scan);
        } else {
            conf_add_mistake(scan->mistakes, scan->token.line,
                             "unexpected %.1s; expected NAME = VALUE", scan->token.text);
            advance(scan);
        }
    }
    if (scan->section_line != 0) {
        conf_add_mistake(scan->mistakes, scan->section_line,
                         "a section is not closed; expected } at its end");
        end_section(scan);
    }
}

/* ---- the file ---- */

/* What is in the way of reading the file; "": nothing. */
static const char *unreadable(const struct stat *state)
{
    if (S_ISDIR(state->st_mode)) {
        return "is a directory; expected a file";
    }
    if (!S_ISREG(state->st_mode)) {
        return "is not a regular file; expected one";
    }
    return state->st_size > CONF_FILE_SIZE_MAX ? "is too large; expected at most 1MiB" : "";
}

/* The text, allocated, with a NUL behind it; NULL: *mistakes says why. */
static char *load(const char *path, size_t *size, struct conf_mistakes *mistakes)
{
    struct stat state;
    char *text = NULL;
    const char *why = "";
    ssize_t got = -1;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd != -1 && fstat(fd, &state) == 0) {
        why = unreadable(&state);
        text = why[0] == '\0' ? calloc(1, (size_t)state.st_size + 1) : NULL;
    }
    if (text != NULL) {
        got = pread(fd, text, (size_t)state.st_size, 0);
    }
    if (got == -1) {
        conf_add_mistake(mistakes, 0, "%s%s", why[0] == '\0' ? "cannot be read: " : why,
                         why[0] == '\0' ? strerrordesc_np(errno) : "");
        free(text);
        text = NULL;
    } else {
        *size = (size_t)got;
    }
    if (fd != -1) {
        (void)close(fd);
    }
    return text;
}

void conf_read(const char *path, const struct conf_reader *reader, struct conf_mistakes *mistakes)
{
    struct scan scan = {.line = 1, .reader = reader, .mistakes = mistakes};
    char *text = load(path, &scan.size, mistakes);
    if (text == NULL) {
        return;
    }
    scan.text = text;
    scan_all(&scan);
    free(text);
}

/* ---- names ---- */

/* How many letters must be put in, left out or changed to make one name of the other. */
static size_t distance(const char *left, const char *right)
{
    size_t row[GUESS_SIZE + 1];
    const size_t right_size = strnlen(right, GUESS_SIZE);
    for (size_t i = 0; i <= right_size; i++) {
        row[i] = i;
    }
    for (size_t i = 0; left[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < right_size; j++) {
            const size_t change = diagonal + (left[i] == right[j] ? 0 : 1);
            size_t least = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            least = change < least ? change : least;
            diagonal = row[j + 1];
            row[j + 1] = least;
        }
    }
    return row[right_size];
}

const char *conf_guess(const char *name, const char *const *names, size_t name_count)
{
    const char *guess = NULL;
    size_t least = GUESS_MAX + 1;
    if (strlen(name) > GUESS_SIZE) {
        return NULL;
    }
    for (size_t i = 0; i < name_count; i++) {
        const size_t far = distance(name, names[i]);
        if (far < least && far < strlen(names[i])) {
            least = far;
            guess = names[i];
        }
    }
    return guess;
}
