/* SPDX-License-Identifier: MPL-2.0 */
/* The words and marks of a configuration file, one after the other. Of conf.c. */
#ifndef TREADLE_CONF_TOKENS_H
#define TREADLE_CONF_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/conf/conf.h"

#define TOKEN_QUOTED_SIZE 80

enum token_kind {
    TOKEN_END,
    TOKEN_WORD, /* plain or quoted */
    TOKEN_EQUALS,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_COMMA,
    TOKEN_WRONG, /* characters that belong to nothing; it was told */
};

struct token {
    enum token_kind kind;
    uint32_t line;
    const char *text; /* quotes and all; into the file's text */
    size_t size;
};

struct tokens {
    char *text; /* a NUL stands behind it; comments and \r become spaces, as libconfuse takes
                   neither everywhere */
    size_t size;
    size_t at; /* behind `token` */
    uint32_t line;
    struct token token;
    struct conf_mistakes *mistakes;
    uint32_t told_line; /* the last one of which a mistake was told; 0: none */
};

/* Makes the next token the current one. The text of what comes after it is not looked at yet. */
void tokens_advance(struct tokens *tokens);

/* Adds a mistake unless one was told of the line: what follows from it is not worth telling. */
void tokens_tell(struct tokens *tokens, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Whether the current token begins NAME = or NAME "TITLE" {, as far as its line tells. */
bool tokens_is_statement(const struct tokens *tokens);

/* Passes what is left of the line, lists that begin in it as a whole. Stops at a brace that closes
 * what was open before. */
void tokens_skip_rest(struct tokens *tokens, uint32_t line);

/* A word for a message. */
const char *token_quote(char out[TOKEN_QUOTED_SIZE], const struct token *token);

#endif
