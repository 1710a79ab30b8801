/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "common/conf/tokens.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"

void tokens_tell(struct tokens *tokens, uint32_t line, const char *format, ...)
{
    char text[CONF_TEXT_SIZE];
    va_list arguments;
    if (tokens->told_line == line) {
        return;
    }
    tokens->told_line = line;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    conf_add_mistake(tokens->mistakes, line, "%s", text);
}

const char *token_quote(char out[TOKEN_QUOTED_SIZE], const struct token *token)
{
    return log_quote(out, TOKEN_QUOTED_SIZE, token->text, token->size);
}

/* ---- what stands between ---- */

static char letter_at(const struct tokens *tokens, size_t at)
{
    return tokens->text[at < tokens->size ? at : tokens->size];
}

static void skip_line(struct tokens *tokens)
{
    while (tokens->at < tokens->size && tokens->text[tokens->at] != '\n') {
        tokens->text[tokens->at++] = ' ';
    }
}

static void skip_block_comment(struct tokens *tokens)
{
    const char *end = strstr(tokens->text + tokens->at + 2, "*/");
    const size_t end_at = end == NULL ? tokens->size : (size_t)(end - tokens->text) + 2;
    if (end == NULL) {
        tokens_tell(tokens, tokens->line, "a comment is not closed; expected */ at its end");
    }
    for (; tokens->at < end_at; tokens->at++) {
        if (tokens->text[tokens->at] == '\n') {
            tokens->line++;
        } else {
            tokens->text[tokens->at] = ' ';
        }
    }
}

static void skip_blank(struct tokens *tokens)
{
    while (tokens->at < tokens->size) {
        const char letter = tokens->text[tokens->at];
        const char next = letter_at(tokens, tokens->at + 1);
        if (letter == '\n') {
            tokens->line++;
            tokens->at++;
        } else if (letter == ' ' || letter == '\t' || letter == '\r') {
            tokens->text[tokens->at++] = ' ';
        } else if (letter == '#' || (letter == '/' && next == '/')) {
            skip_line(tokens);
        } else if (letter == '/' && next == '*') {
            skip_block_comment(tokens);
        } else {
            return;
        }
    }
}

/* ---- tokens ---- */

/* What libconfuse would read in another way than a person means it; NULL: nothing. */
static const char *wrong_in_string(const struct tokens *tokens, char quote)
{
    const char letter = tokens->text[tokens->at];
    const char next = letter_at(tokens, tokens->at + 1);
    if (quote == '"' && letter == '$' && next == '{') {
        return "${...} is not expanded; expected the value itself, or single quotes";
    }
    if (quote == '"' && letter == '\\' && (next == '\0' || strchr("\\\"nt", next) == NULL)) {
        return "a backslash in a string; expected \\\\, \\\", \\n or \\t, or single quotes";
    }
    if (((unsigned char)letter < ' ' && letter != '\t') || letter == 0x7f) {
        return "a control character in a string; expected text";
    }
    return NULL;
}

/* From the opening quote to behind the closing one. */
static void skip_string(struct tokens *tokens)
{
    const char quote = tokens->text[tokens->at];
    for (tokens->at++; tokens->at < tokens->size && tokens->text[tokens->at] != '\n';
         tokens->at++) {
        const char letter = tokens->text[tokens->at];
        const char next = letter_at(tokens, tokens->at + 1);
        const char *wrong = wrong_in_string(tokens, quote);
        if (letter == quote) {
            tokens->at++;
            return;
        }
        if (wrong != NULL) {
            tokens_tell(tokens, tokens->line, "%s", wrong);
        }
        if (letter == '\\' && (next == quote || next == '\\')) {
            tokens->at++;
        }
    }
    tokens_tell(tokens, tokens->line,
                "a string is not closed; expected its second quote on the same line");
}

static bool is_plain(char letter)
{
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9') ||
           (letter != '\0' && strchr("_.:/-[]", letter) != NULL);
}

static enum token_kind kind_of(char letter)
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
    case '"':
    case '\'':
        return TOKEN_WORD;
    default:
        return is_plain(letter) ? TOKEN_WORD : TOKEN_WRONG;
    }
}

/* A run of characters that belong to nothing. */
static void skip_wrong(struct tokens *tokens)
{
    char quoted[TOKEN_QUOTED_SIZE];
    tokens_tell(tokens, tokens->line,
                "unexpected character %s; expected NAME = VALUE, with the value in quotes",
                log_quote(quoted, sizeof(quoted), tokens->text + tokens->at, 1));
    while (tokens->at < tokens->size && strchr(" \t\r\n", tokens->text[tokens->at]) == NULL &&
           kind_of(tokens->text[tokens->at]) == TOKEN_WRONG) {
        tokens->at++;
    }
}

void tokens_advance(struct tokens *tokens)
{
    skip_blank(tokens);
    const size_t start = tokens->at;
    struct token *token = &tokens->token;
    *token = (struct token){.kind = TOKEN_END, .line = tokens->line, .text = tokens->text + start};
    if (start == tokens->size) {
        return;
    }
    token->kind = kind_of(tokens->text[start]);
    if (token->kind == TOKEN_WRONG) {
        skip_wrong(tokens);
    } else if (token->kind != TOKEN_WORD) {
        tokens->at++;
    } else if (is_plain(tokens->text[start])) {
        while (is_plain(letter_at(tokens, tokens->at))) {
            tokens->at++;
        }
    } else {
        skip_string(tokens);
    }
    token->size = tokens->at - start;
}

bool tokens_is_statement(const struct tokens *tokens)
{
    if (tokens->token.kind != TOKEN_WORD || !is_plain(tokens->token.text[0])) {
        return false;
    }
    const char *next = tokens->text + tokens->at;
    next += strspn(next, " \t");
    if (*next == '=' || *next == '{') {
        return true;
    }
    if (*next != '"' && *next != '\'') {
        return false;
    }
    const char quote[] = {*next, '\n', '\0'};
    next += 1 + strcspn(next + 1, quote);
    next += *next == quote[0] ? 1 : 0;
    return next[strspn(next, " \t")] == '{';
}

void tokens_skip_rest(struct tokens *tokens, uint32_t line)
{
    const struct token *token = &tokens->token;
    size_t depth = 0;
    while (token->kind != TOKEN_END && (token->line == line || depth > 0)) {
        if (token->line != line && tokens_is_statement(tokens)) {
            return; /* what was opened is never closed */
        }
        if (token->kind == TOKEN_OPEN) {
            depth++;
        } else if (token->kind == TOKEN_CLOSE && depth == 0) {
            return;
        } else if (token->kind == TOKEN_CLOSE) {
            depth--;
        }
        tokens_advance(tokens);
    }
}
