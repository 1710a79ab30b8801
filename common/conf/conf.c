/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "common/conf/conf.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/conf/guess.h"
#include "common/conf/tokens.h"

#define EXPECTED_SIZE 256
#define WHAT_SIZE     160
#define NO_KEY        SIZE_MAX

/* What libconfuse made of a value or a list. */
struct values {
    char *texts[CONF_VALUES_MAX];
    size_t count;
    bool is_bad;
};
/* For the functions that libconfuse calls back; it hands them no pointer of ours. */
static _Thread_local struct values *values;

struct reading {
    struct tokens tokens;
    const struct conf_reader *reader;
    struct conf_mistakes *mistakes;
    const struct conf_section *section; /* the one we are in, or the one that was probably meant */
    uint32_t section_line;              /* 0: in no section */
    bool is_section_known;
    uint32_t lines[CONF_KEY_COUNT_MAX];         /* where the keys stand; 0: not yet */
    uint32_t section_lines[CONF_KEY_COUNT_MAX]; /* of this section */
    uint32_t value_lines[CONF_VALUES_MAX];      /* of the value that is being read */
    size_t value_count;
};

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

/* ---- names ---- */

static uint32_t place_of(const struct reading *reading)
{
    if (reading->section_line == 0) {
        return CONF_PLACE_TOP;
    }
    return reading->section == NULL ? 0 : reading->section->place;
}

/* Of a section that nobody knows, nothing is known. */
static bool is_place_unknown(const struct reading *reading)
{
    return reading->section_line != 0 && reading->section == NULL;
}

static size_t find_key(const struct reading *reading, const struct token *name)
{
    const struct conf_reader *reader = reading->reader;
    for (size_t i = 0; i < reader->key_count; i++) {
        const struct conf_key *key = &reader->keys[i];
        if ((key->places & place_of(reading)) != 0 && strlen(key->name) == name->size &&
            memcmp(key->name, name->text, name->size) == 0) {
            return i;
        }
    }
    return NO_KEY;
}

/* "NAME: what; did you mean MEANT?" */
static void tell_unknown(struct reading *reading, const struct token *name, const char *what,
                         const struct guess *guess)
{
    char quoted[TOKEN_QUOTED_SIZE];
    token_quote(quoted, name);
    if (guess->meant != NULL) {
        conf_add_mistake(reading->mistakes, name->line, "%s: %s; did you mean %s?", quoted, what,
                         guess->meant);
    } else {
        conf_add_mistake(reading->mistakes, name->line, "%s: %s; expected one of %s", quoted, what,
                         reading->reader->manual);
    }
}

static void tell_unknown_key(struct reading *reading, const struct token *name)
{
    const struct conf_reader *reader = reading->reader;
    char quoted[TOKEN_QUOTED_SIZE];
    char what[WHAT_SIZE] = "no such key";
    char *text = strndup(name->text, name->size);
    struct guess guess;
    size_t key_count = 0;
    guess_init(&guess, text == NULL ? "" : text);
    for (size_t i = 0; i < reader->key_count; i++) {
        if ((reader->keys[i].places & place_of(reading)) != 0) {
            guess_offer(&guess, reader->keys[i].name);
            key_count++;
        }
    }
    if (reading->section != NULL) {
        (void)snprintf(what, sizeof(what), "%s %s%s", key_count > 0 ? "no such key of a" : "a",
                       reading->section->name, key_count > 0 ? "" : " has no keys");
    }
    if (key_count == 0) {
        conf_add_mistake(reading->mistakes, name->line, "%s: %s; expected }",
                         token_quote(quoted, name), what);
    } else {
        tell_unknown(reading, name, what, &guess);
    }
    free(text);
}

static void tell_of_key(struct reading *reading, uint32_t line, size_t index, const char *what)
{
    const struct conf_key *key = &reading->reader->keys[index];
    char expected[EXPECTED_SIZE];
    conf_print_expected(key, expected, sizeof(expected));
    conf_add_mistake(reading->mistakes, line, "%s: %s; expected %s", key->name, what, expected);
}

/* ---- settings ---- */

static bool is_told(const struct reading *reading, uint32_t line)
{
    return reading->tokens.told_line == line;
}

/* Takes a word, or tells what is wrong with the list here. */
static void take_in_list(struct reading *reading, bool wants_value)
{
    struct tokens *tokens = &reading->tokens;
    const uint32_t line = tokens->token.line;
    if (tokens->token.kind == TOKEN_WORD && !wants_value) {
        tokens_tell(tokens, line, "two values without a comma; expected one between them");
    } else if (tokens->token.kind == TOKEN_COMMA && wants_value) {
        tokens_tell(tokens, line, "a comma without a value; expected one before it");
    } else if (tokens->token.kind == TOKEN_WORD) {
        if (reading->value_count == CONF_VALUES_MAX) {
            tokens_tell(tokens, line, "a list too long; expected at most %d values",
                        CONF_VALUES_MAX);
            return;
        }
        reading->value_lines[reading->value_count++] = line;
    }
}

/* From the opening brace to the closing one. False: there is none, and the current token is not of
 * the list. A comma may stand behind the last value. */
static bool scan_list(struct reading *reading)
{
    struct tokens *tokens = &reading->tokens;
    const uint32_t line = tokens->token.line;
    bool wants_value = true;
    reading->value_count = 0;
    tokens_advance(tokens);
    while (tokens->token.kind != TOKEN_CLOSE) {
        const enum token_kind kind = tokens->token.kind;
        if (kind == TOKEN_END || kind == TOKEN_EQUALS || kind == TOKEN_OPEN ||
            tokens_is_statement(tokens)) {
            tokens_tell(tokens, line, "a list is not closed; expected } at its end");
            return false;
        }
        take_in_list(reading, wants_value);
        if (kind != TOKEN_WRONG) {
            wants_value = kind == TOKEN_COMMA;
        }
        tokens_advance(tokens);
    }
    return true;
}

/* The value is `text`: hands it on if its shape is right. */
static void take_setting(struct reading *reading, size_t key, const struct token *name,
                         const struct token *text)
{
    const struct conf_reader *reader = reading->reader;
    const enum conf_shape shape = reader->keys[key].shape;
    const bool is_list = text->kind == TOKEN_OPEN;
    struct values read = {.count = 0};
    if (is_list && shape == CONF_ONE) {
        tell_of_key(reading, name->line, key, "a list");
        return;
    }
    if (!is_list && (shape == CONF_LIST || shape == CONF_LIST_OR_NONE)) {
        tell_of_key(reading, name->line, key, "not a list");
        return;
    }
    if (reading->value_count == 0 && shape != CONF_LIST_OR_NONE) {
        tell_of_key(reading, name->line, key, "an empty list");
        return;
    }
    read_values(&read, text->text, text->size, is_list);
    if (read.is_bad || read.count != reading->value_count) {
        tell_of_key(reading, name->line, key, "a value that is not understood");
    } else if (reading->section_line == 0 || reading->is_section_known) {
        const struct conf_setting setting = {
            .line = name->line,
            .key = key,
            .place = place_of(reading),
            .values = (const char *const *)read.texts,
            .value_lines = reading->value_lines,
            .value_count = read.count,
        };
        reader->on_setting(reader->context, &setting);
    }
    free_values(&read);
}

/* What stands behind the value, in its line: nothing, but settings of a section may stand side by
 * side. */
static void check_rest(struct reading *reading, const struct token *name, uint32_t line)
{
    struct tokens *tokens = &reading->tokens;
    const struct token *token = &tokens->token;
    const bool is_in_section = reading->section_line != 0;
    const bool is_statement = tokens_is_statement(tokens);
    char quoted[TOKEN_QUOTED_SIZE];
    if (token->kind == TOKEN_END || token->line != line ||
        (is_in_section && (token->kind == TOKEN_CLOSE || is_statement))) {
        return;
    }
    if (is_statement) {
        tokens_tell(tokens, line, "two settings in one line; expected one a line");
    } else {
        tokens_tell(tokens, line, "%s: more behind its value; expected one setting a line",
                    token_quote(quoted, name));
    }
    tokens_skip_rest(tokens, line);
}

static void hand_on_name(const struct reading *reading, size_t key)
{
    const struct conf_reader *reader = reading->reader;
    if (reader->on_name != NULL) {
        reader->on_name(reader->context, key);
    }
}

/* The key of a name that stands before an '='; what is wrong with it is told. */
static size_t take_name(struct reading *reading, const struct token *name)
{
    uint32_t *lines = reading->section_line == 0 ? reading->lines : reading->section_lines;
    const size_t key = find_key(reading, name);
    if (key == NO_KEY) {
        if (!is_place_unknown(reading)) {
            tell_unknown_key(reading, name);
        }
    } else if (lines[key] != 0) {
        conf_add_mistake(reading->mistakes, name->line,
                         "%s stands in line %u already; expected it once",
                         reading->reader->keys[key].name, lines[key]);
        return NO_KEY;
    } else {
        lines[key] = name->line;
        hand_on_name(reading, key);
    }
    return key;
}

/* At the '=' behind NAME. */
static void scan_setting(struct reading *reading, const struct token *name)
{
    struct tokens *tokens = &reading->tokens;
    const size_t key = take_name(reading, name);
    const uint32_t equals_line = tokens->token.line;
    const uint32_t told_line = tokens->told_line;
    tokens_advance(tokens);
    struct token value = tokens->token;
    const bool is_list = value.kind == TOKEN_OPEN;
    if (value.line != equals_line || (value.kind != TOKEN_WORD && !is_list)) {
        if (key != NO_KEY && !is_told(reading, equals_line)) {
            tell_of_key(reading, name->line, key, "no value");
        }
        tokens->told_line = equals_line;
        tokens_skip_rest(tokens, equals_line);
        return;
    }
    if (is_list && !scan_list(reading)) {
        tokens_skip_rest(tokens, equals_line);
        return;
    }
    if (!is_list) {
        reading->value_lines[0] = value.line;
        reading->value_count = 1;
    }
    const uint32_t last_line = tokens->token.line;
    const bool is_right = key != NO_KEY && tokens->told_line == told_line;
    value.size = (size_t)(tokens->text + tokens->at - value.text);
    tokens_advance(tokens);
    check_rest(reading, name, last_line);
    if (is_right && !is_told(reading, last_line)) {
        take_setting(reading, key, name, &value);
    }
}

/* ---- sections ---- */

static void end_section(struct reading *reading)
{
    const bool was_known = reading->is_section_known;
    reading->section_line = 0;
    reading->section = NULL;
    reading->is_section_known = false;
    if (was_known) {
        reading->reader->on_section_end(reading->reader->context);
    }
}

static bool is_section(const struct conf_reader *reader, const struct token *name)
{
    for (size_t i = 0; i < reader->section_count; i++) {
        const char *section = reader->sections[i].name;
        if (strlen(section) == name->size && memcmp(section, name->text, name->size) == 0) {
            return true;
        }
    }
    return false;
}

/* Makes the section of this name the current one, or else one whose name is near. */
static void choose_section(struct reading *reading, const struct token *name)
{
    const struct conf_reader *reader = reading->reader;
    char *text = strndup(name->text, name->size);
    struct guess guess;
    guess_init(&guess, text == NULL ? "" : text);
    for (size_t i = 0; i < reader->section_count; i++) {
        const struct conf_section *section = &reader->sections[i];
        const char *meant = guess.meant;
        guess_offer(&guess, section->name);
        if (guess.meant != meant) {
            reading->section = section;
        }
        if (text != NULL && strcmp(section->name, text) == 0) {
            reading->section = section;
            reading->is_section_known = true;
        }
    }
    if (reader->section_count == 0) {
        char quoted[TOKEN_QUOTED_SIZE];
        conf_add_mistake(reading->mistakes, name->line,
                         "%s: a section, and there are none here; expected NAME = VALUE",
                         token_quote(quoted, name));
    } else if (!reading->is_section_known) {
        tell_unknown(reading, name, "no such section", &guess);
    }
    free(text);
}

/* At the opening brace, in a section, after a name that is no section's: passes what is in it. */
static void skip_nested(struct reading *reading, const struct token *name)
{
    struct tokens *tokens = &reading->tokens;
    char quoted[TOKEN_QUOTED_SIZE];
    size_t depth = 0;
    if (!is_place_unknown(reading)) {
        tokens_tell(tokens, name->line, "%s: a section in a section; expected NAME = VALUE",
                    token_quote(quoted, name));
    }
    do {
        depth += tokens->token.kind == TOKEN_OPEN ? 1 : 0;
        depth -= tokens->token.kind == TOKEN_CLOSE ? 1 : 0;
        tokens_advance(tokens);
    } while (depth > 0 && tokens->token.kind != TOKEN_END);
}

/* At the opening brace, after NAME and maybe a title (of size 0 if not). */
static void scan_section(struct reading *reading, const struct token *name,
                         const struct token *title)
{
    const struct conf_reader *reader = reading->reader;
    struct values read = {.count = 0};
    if (reading->section_line != 0) {
        conf_add_mistake(reading->mistakes, reading->section_line,
                         "a section is not closed; expected } before line %u", name->line);
        end_section(reading);
    }
    choose_section(reading, name);
    reading->section_line = name->line;
    memset(reading->section_lines, 0, sizeof(reading->section_lines));
    if (title->size > 0 && !is_told(reading, title->line)) {
        read_values(&read, title->text, title->size, false);
        if (read.is_bad || read.count != 1) {
            tokens_tell(&reading->tokens, name->line,
                        "a title that is not understood; expected NAME \"TITLE\" {");
        }
    }
    reading->is_section_known = reading->is_section_known && !is_told(reading, name->line);
    if (reading->is_section_known) {
        reader->on_section(reader->context, name->line, reading->section,
                           read.count > 0 ? read.texts[0] : "");
    }
    free_values(&read);
    tokens_advance(&reading->tokens);
}

/* ---- statements ---- */

/* The statement has neither '=' nor what would make it a section. */
static void tell_no_statement(struct reading *reading, const struct token *name)
{
    struct tokens *tokens = &reading->tokens;
    const size_t key = find_key(reading, name);
    char quoted[TOKEN_QUOTED_SIZE];
    token_quote(quoted, name);
    if (key != NO_KEY) {
        hand_on_name(reading, key);
        tokens_tell(tokens, name->line, "%s: no '='; expected %s = VALUE", quoted, quoted);
    } else if (reading->reader->section_count == 0 || reading->section_line != 0) {
        tokens_tell(tokens, name->line, "%s: not a setting; expected NAME = VALUE", quoted);
    } else {
        tokens_tell(tokens, name->line,
                    "%s: neither a setting nor a section; expected NAME = VALUE or NAME \"TITLE\" "
                    "{ ... }",
                    quoted);
    }
}

static void scan_statement(struct reading *reading)
{
    struct tokens *tokens = &reading->tokens;
    const struct token name = tokens->token;
    struct token title = {.size = 0};
    tokens_advance(tokens);
    if (tokens->token.kind == TOKEN_EQUALS) {
        scan_setting(reading, &name);
        return;
    }
    if (tokens->token.kind == TOKEN_WORD && tokens->token.line == name.line) {
        title = tokens->token;
        tokens_advance(tokens);
    }
    if (tokens->token.kind == TOKEN_OPEN && find_key(reading, &name) == NO_KEY) {
        if (reading->section_line != 0 && !is_section(reading->reader, &name)) {
            skip_nested(reading, &name);
        } else {
            scan_section(reading, &name, &title);
        }
        return;
    }
    if (!is_place_unknown(reading)) {
        tell_no_statement(reading, &name);
    }
    if (tokens->token.kind == TOKEN_OPEN && scan_list(reading)) {
        tokens_advance(tokens);
    }
    tokens_skip_rest(tokens, name.line);
}

static void scan_all(struct reading *reading)
{
    struct tokens *tokens = &reading->tokens;
    tokens_advance(tokens);
    while (tokens->token.kind != TOKEN_END && reading->mistakes->count < CONF_MISTAKES_TOLD_MAX) {
        const struct token token = tokens->token;
        if (token.kind == TOKEN_WORD) {
            scan_statement(reading);
        } else if (token.kind == TOKEN_CLOSE && reading->section_line != 0) {
            end_section(reading);
            tokens_advance(tokens);
        } else {
            tokens_tell(tokens, token.line, "unexpected %.1s; expected NAME = VALUE", token.text);
            tokens_advance(tokens);
            tokens_skip_rest(tokens, token.line);
        }
    }
    if (reading->section_line != 0 && tokens->token.kind == TOKEN_END) {
        conf_add_mistake(reading->mistakes, reading->section_line,
                         "a section is not closed; expected } at its end");
    }
    if (reading->section_line != 0) {
        end_section(reading);
    }
}

/* ---- the file ---- */

static const char *form_of(const struct conf_reader *reader)
{
    return reader->form != NULL ? reader->form : "NAME = VALUE lines";
}

/* Who may write a file that says who may do what, may do everything. False: somebody else may, and
 * it was told. */
static bool is_guarded(const char *path, const struct stat *state, struct conf_mistakes *mistakes)
{
    if (state->st_uid != 0 && state->st_uid != geteuid()) {
        conf_add_mistake(mistakes, CONF_LINE_WHOLE,
                         "belongs to another user; expected one of root or of the user who reads "
                         "it");
        return false;
    }
    if ((state->st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        conf_add_mistake(mistakes, CONF_LINE_WHOLE,
                         "may be written by others; expected a file that only its owner may "
                         "write: chmod go-w %s",
                         path);
        return false;
    }
    return true;
}

/* False: what is in the way of reading the file was told. */
static bool is_readable(const char *path, const struct stat *state,
                        const struct conf_reader *reader, struct conf_mistakes *mistakes)
{
    if (!S_ISREG(state->st_mode)) {
        conf_add_mistake(mistakes, CONF_LINE_WHOLE, "is %s; expected a file of %s",
                         S_ISDIR(state->st_mode) ? "a directory" : "not a regular file",
                         form_of(reader));
        return false;
    }
    if (state->st_size > CONF_FILE_SIZE_MAX) {
        conf_add_mistake(mistakes, CONF_LINE_WHOLE, "is too large; expected at most 1MiB");
        return false;
    }
    return !reader->is_guarded || is_guarded(path, state, mistakes);
}

/* The text, allocated, with a NUL behind it; NULL: *mistakes says why. */
static char *load(const char *path, const struct conf_reader *reader, size_t *size,
                  struct conf_mistakes *mistakes)
{
    struct stat state;
    char *text = NULL;
    bool is_told = false;
    ssize_t got = -1;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd != -1 && fstat(fd, &state) == 0) {
        is_told = !is_readable(path, &state, reader, mistakes);
        text = is_told ? NULL : calloc(1, (size_t)state.st_size + 1);
    }
    if (text != NULL) {
        got = pread(fd, text, (size_t)state.st_size, 0);
    }
    if (got != -1) {
        *size = (size_t)got;
    } else {
        if (!is_told) {
            conf_add_mistake(mistakes, CONF_LINE_WHOLE, "cannot be read: %s; expected a file of %s",
                             strerrordesc_np(errno), form_of(reader));
        }
        free(text);
        text = NULL;
    }
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

void conf_read(const char *path, const struct conf_reader *reader, struct conf_mistakes *mistakes)
{
    struct reading reading = {.reader = reader, .mistakes = mistakes};
    struct tokens *tokens = &reading.tokens;
    TREADLE_ASSERT(reader->key_count <= CONF_KEY_COUNT_MAX);
    char *text = load(path, reader, &tokens->size, mistakes);
    if (text == NULL) {
        return;
    }
    const char *zero = memchr(text, '\0', tokens->size);
    if (zero != NULL) {
        conf_add_mistake(mistakes, line_at(text, zero), "a zero byte; expected a text file");
    } else {
        tokens->text = text;
        tokens->line = 1;
        tokens->mistakes = mistakes;
        scan_all(&reading);
    }
    free(text);
}
