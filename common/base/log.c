/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "common/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"

static const char *const level_names[LOG_LEVEL_COUNT] = {"debug", "info", "warn", "error"};

static _Atomic int level_min = LOG_LEVEL_INFO;

void log_open(enum log_level level, enum log_format format)
{
    TREADLE_ASSERT(level < LOG_LEVEL_COUNT && format == LOG_FORMAT_TEXT);
    atomic_store_explicit(&level_min, (int)level, memory_order_relaxed);
}

bool log_level_parse(const char *text, enum log_level *level)
{
    for (int i = 0; i < LOG_LEVEL_COUNT; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_is_on(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&level_min, memory_order_relaxed);
}

/* Writes "2026-01-31T12:00:00.123Z level event"; returns its size. */
static size_t print_head(char *out, size_t out_size, enum log_level level, const char *event)
{
    struct timespec now = {0, 0};
    struct tm utc;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    memset(&utc, 0, sizeof(utc));
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t size = strftime(out, out_size, "%Y-%m-%dT%H:%M:%S", &utc);
    const int added = snprintf(out + size, out_size - size, ".%03dZ %s %s",
                               (int)(now.tv_nsec / 1000000), level_names[level], event);
    TREADLE_ASSERT(added > 0 && (size_t)added < out_size - size);
    return size + (size_t)added;
}

void log_write(enum log_level level, const char *event, const char *format, ...)
{
    const int errno_before = errno;
    char line[LOG_LINE_SIZE];
    const size_t room = sizeof(line) - sizeof("...\n");
    TREADLE_ASSERT(level < LOG_LEVEL_COUNT);
    size_t size = print_head(line, room, level, event);
    const size_t head_size = size;

    va_list arguments;
    va_start(arguments, format);
    const int added = vsnprintf(line + size, room - size, format, arguments);
    va_end(arguments);
    const bool is_cut = added > 0 && (size_t)added >= room - size;
    if (added > 0) {
        size = is_cut ? room - 1 : size + (size_t)added;
    }
    for (size_t i = head_size; i < size; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f) {
            line[i] = '?'; /* a value that nobody quoted must not start a line of its own */
        }
    }
    while (size > head_size && line[size - 1] == ' ') {
        size--;
    }
    if (is_cut) {
        for (int i = 0; i < 3; i++) {
            line[size++] = '.';
        }
    }
    line[size++] = '\n';
    /* Where the log itself cannot be written there is nobody left to tell. */
    const ssize_t written = write(STDERR_FILENO, line, size);
    (void)written;
    errno = errno_before;
}

/* Room for what stands for one character: at most 4 bytes as \xNN. */
#define PIECE_SIZE 16

/* Size of the well-formed UTF-8 character (RFC 3629) at `text`, or 0. Writes its code point. */
static size_t take_character(const uint8_t *text, size_t size, uint32_t *code_point)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t wanted = 0;
    uint32_t code = text[0];
    if (code < 0x80) {
        wanted = 1;
    } else if (code >= 0xc2 && code < 0xe0) {
        wanted = 2;
        code &= 0x1f;
    } else if (code >= 0xe0 && code < 0xf0) {
        wanted = 3;
        code &= 0x0f;
    } else if (code >= 0xf0 && code < 0xf5) {
        wanted = 4;
        code &= 0x07;
    }
    if (wanted == 0 || wanted > size) {
        return 0;
    }
    for (size_t i = 1; i < wanted; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (text[i] & 0x3f);
    }
    if (code < least[wanted] || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff) {
        return 0;
    }
    *code_point = code;
    return wanted;
}

/* C0, C1, DEL, and what breaks a line or turns the text's direction on a terminal. */
static bool is_control(uint32_t code_point)
{
    return code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0) || code_point == 0x200e ||
           code_point == 0x200f || (code_point >= 0x2028 && code_point <= 0x202e) ||
           (code_point >= 0x2066 && code_point <= 0x2069);
}

static bool is_plain_word(const uint8_t *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] <= ' ' || text[i] >= 0x7f || text[i] == '"' || text[i] == '\\' ||
            text[i] == '=') {
            return false;
        }
    }
    return size > 0;
}

/* What stands for the next character: written to `piece`; returns how much of the text it was. */
static size_t quote_character(const uint8_t *text, size_t size, char piece[PIECE_SIZE],
                              size_t *piece_size)
{
    static const char digits[] = "0123456789abcdef";
    uint32_t code_point = 0;
    const size_t taken = take_character(text, size, &code_point);
    const size_t used = taken == 0 ? 1 : taken; /* not UTF-8: this byte alone */
    *piece_size = 0;
    if (taken > 0 && !is_control(code_point)) {
        if (text[0] == '"' || text[0] == '\\') {
            piece[(*piece_size)++] = '\\';
        }
        memcpy(piece + *piece_size, text, used);
        *piece_size += used;
        return used;
    }
    if (text[0] == '\n' || text[0] == '\t') {
        piece[0] = '\\';
        piece[1] = text[0] == '\n' ? 'n' : 't';
        *piece_size = 2;
        return used;
    }
    for (size_t i = 0; i < used; i++) {
        piece[(*piece_size)++] = '\\';
        piece[(*piece_size)++] = 'x';
        piece[(*piece_size)++] = digits[text[i] >> 4];
        piece[(*piece_size)++] = digits[text[i] & 0x0f];
    }
    return used;
}

/* True if the text fits whole, with its quotes and the NUL. */
static bool fits_quoted(const uint8_t *text, size_t size, size_t out_size)
{
    size_t total = 3;
    for (size_t i = 0; i < size && total <= out_size;) {
        char piece[PIECE_SIZE];
        size_t piece_size = 0;
        i += quote_character(text + i, size - i, piece, &piece_size);
        total += piece_size;
    }
    return total <= out_size;
}

const char *log_quote(char *out, size_t out_size, const void *text, size_t size)
{
    const uint8_t *bytes = text;
    TREADLE_ASSERT(out_size >= 8);
    if (size < out_size && is_plain_word(bytes, size)) {
        memcpy(out, bytes, size);
        out[size] = '\0';
        return out;
    }
    const bool is_whole = fits_quoted(bytes, size, out_size);
    const size_t reserved = is_whole ? sizeof("\"") : sizeof("...\"");
    size_t out_used = 0;
    out[out_used++] = '"';
    for (size_t i = 0; i < size;) {
        char piece[PIECE_SIZE];
        size_t piece_size = 0;
        i += quote_character(bytes + i, size - i, piece, &piece_size);
        if (piece_size + reserved > out_size - out_used) {
            break;
        }
        memcpy(out + out_used, piece, piece_size);
        out_used += piece_size;
    }
    const char *end = is_whole ? "\"" : "...\"";
    memcpy(out + out_used, end, reserved);
    return out;
}
