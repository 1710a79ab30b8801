/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "common/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"

#define DROPPED_FIELDS_SIZE 64
#define TIME_TEXT_SIZE      48

static const char *const level_names[LOG_LEVEL_COUNT] = {"debug", "info", "warn", "error"};

enum stderr_kind {
    STDERR_WAITS,  /* as it is: a writer may have to wait */
    STDERR_OWN_FD, /* a description of our own that does not wait */
    STDERR_SOCKET,
    STDERR_POLLED, /* asked for room before each line */
};

static _Atomic int level_min = LOG_LEVEL_INFO;
static log_sink *_Atomic line_sink = log_text;
static enum stderr_kind stderr_kind = STDERR_WAITS;
static int stderr_fd = STDERR_FILENO;
static _Atomic uint64_t dropped_count;
static atomic_bool is_line_cut; /* the last one did not get its newline */

void log_open(enum log_level level, log_sink *sink)
{
    TREADLE_ASSERT(level < LOG_LEVEL_COUNT);
    atomic_store_explicit(&level_min, (int)level, memory_order_relaxed);
    atomic_store_explicit(&line_sink, sink == NULL ? log_text : sink, memory_order_relaxed);
}

/* O_NONBLOCK on the description we were given would be that of everybody on this terminal. */
void log_never_wait(void)
{
    struct stat state;
    if (fstat(STDERR_FILENO, &state) != 0 || S_ISREG(state.st_mode)) {
        return; /* a file makes nobody wait, and has one offset for all who append to it */
    }
    if (S_ISSOCK(state.st_mode)) {
        stderr_kind = STDERR_SOCKET;
        return;
    }
    const int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    stderr_fd = fd == -1 ? STDERR_FILENO : fd;
    stderr_kind = fd == -1 ? STDERR_POLLED : STDERR_OWN_FD;
}

static ssize_t write_now(const char *data, size_t size)
{
    struct pollfd poll_fd = {.fd = stderr_fd, .events = POLLOUT};
    switch (stderr_kind) {
    case STDERR_SOCKET:
        return send(stderr_fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    case STDERR_POLLED:
        if (poll(&poll_fd, 1, 0) != 1) {
            return -1;
        }
        break;
    case STDERR_WAITS:
    case STDERR_OWN_FD:
        break;
    }
    return write(stderr_fd, data, size);
}

bool log_put(const char *line, size_t size)
{
    if (atomic_load_explicit(&is_line_cut, memory_order_relaxed)) {
        if (write_now("\n", 1) != 1) {
            return false;
        }
        atomic_store_explicit(&is_line_cut, false, memory_order_relaxed);
    }
    const ssize_t written = write_now(line, size);
    if (written > 0 && (size_t)written < size) {
        atomic_store_explicit(&is_line_cut, true, memory_order_relaxed);
    }
    return written == (ssize_t)size;
}

const char *log_level_text(enum log_level level)
{
    TREADLE_ASSERT(level < LOG_LEVEL_COUNT);
    return level_names[level];
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

/* "2026-01-31T12:00:00.123Z" */
static void print_time(char out[TIME_TEXT_SIZE])
{
    struct timespec now = {0, 0};
    struct tm utc;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    memset(&utc, 0, sizeof(utc));
    (void)gmtime_r(&now.tv_sec, &utc);
    const size_t size = strftime(out, TIME_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(out + size, TIME_TEXT_SIZE - size, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

bool log_text(const struct log_line *line)
{
    char text[LOG_LINE_SIZE];
    const size_t room = sizeof(text) - sizeof("...\n");
    const int wanted = snprintf(text, room, "%s %s %s%s%s", line->time, level_names[line->level],
                                line->event, line->fields[0] == '\0' ? "" : " ", line->fields);
    if (wanted < 0) {
        return false;
    }
    const bool is_cut = (size_t)wanted >= room;
    size_t size = is_cut ? room - 1 : (size_t)wanted;
    for (int i = 0; is_cut && i < 3; i++) {
        text[size++] = '.';
    }
    text[size++] = '\n';
    return log_put(text, size);
}

/* Lines that were lost are told of as soon as there is room. */
static void tell_of_dropped(log_sink *sink, const char *time)
{
    const uint64_t count = atomic_exchange_explicit(&dropped_count, 0, memory_order_relaxed);
    if (count == 0) {
        return;
    }
    char fields[DROPPED_FIELDS_SIZE];
    (void)snprintf(fields, sizeof(fields), "lines=%" PRIu64, count);
    const struct log_line line = {LOG_LEVEL_WARN, time, "log.dropped", fields};
    if (!sink(&line)) {
        atomic_fetch_add_explicit(&dropped_count, count, memory_order_relaxed);
    }
}

void log_write(enum log_level level, const char *event, const char *format, ...)
{
    const int errno_before = errno;
    char time[TIME_TEXT_SIZE];
    char fields[LOG_LINE_SIZE];
    TREADLE_ASSERT(level < LOG_LEVEL_COUNT);
    print_time(time);

    va_list arguments;
    va_start(arguments, format);
    const int wanted = vsnprintf(fields, sizeof(fields), format, arguments);
    va_end(arguments);
    size_t size = strnlen(fields, wanted < 0 ? 0 : sizeof(fields));
    while (size > 0 && fields[size - 1] == ' ') {
        size--;
    }
    fields[size] = '\0';
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)fields[i] < ' ' || fields[i] == 0x7f) {
            fields[i] = '?'; /* a value that nobody quoted must not start a line of its own */
        }
    }
    const char *start = fields + strspn(fields, " ");
    const struct log_line line = {level, time, event, start};
    log_sink *sink = atomic_load_explicit(&line_sink, memory_order_relaxed);
    tell_of_dropped(sink, time);
    if (!sink(&line)) {
        atomic_fetch_add_explicit(&dropped_count, 1, memory_order_relaxed);
    }
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

/* Digits alone are no plain word: without quotes they are a number. */
static bool is_plain_word(const uint8_t *text, size_t size)
{
    size_t digit_count = 0;
    for (size_t i = 0; i < size; i++) {
        digit_count += text[i] >= '0' && text[i] <= '9' ? 1 : 0;
        if (text[i] <= ' ' || text[i] >= 0x7f || text[i] == '"' || text[i] == '\\' ||
            text[i] == '=') {
            return false;
        }
    }
    return digit_count < size;
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

/* ---- fields ---- */

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* One byte of a quoted value, its escape undone; moves *next on. */
static char take_escaped(const char **next)
{
    const char *at = *next;
    if (at[0] != '\\' || at[1] == '\0') {
        *next = at + 1;
        return at[0];
    }
    const int high = at[1] == 'x' ? hex_digit(at[2]) : -1;
    const int low = high == -1 ? -1 : hex_digit(at[3]);
    if (low != -1) {
        *next = at + 4;
        return (char)(high << 4 | low);
    }
    *next = at + 2;
    switch (at[1]) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    default:
        return at[1];
    }
}

/* Copies text as UTF-8; returns its size there. */
static size_t copy_utf8(char *out, size_t out_size, const char *text, size_t size)
{
    static const char replacement[] = "\xef\xbf\xbd";
    const uint8_t *bytes = (const uint8_t *)text;
    size_t used = 0;
    for (size_t i = 0; i < size;) {
        uint32_t code_point = 0;
        const size_t taken = take_character(bytes + i, size - i, &code_point);
        const size_t piece_size = taken == 0 ? sizeof(replacement) - 1 : taken;
        if (piece_size > out_size - used) {
            break;
        }
        memcpy(out + used, taken == 0 ? replacement : text + i, piece_size);
        used += piece_size;
        i += taken == 0 ? 1 : taken;
    }
    return used;
}

_Static_assert(LOG_VALUE_SIZE == 3 * LOG_LINE_SIZE, "a byte may become a U+FFFD of three");

bool log_field_next(const char **next, char room[LOG_VALUE_SIZE], struct log_field *field)
{
    const char *at = *next + strspn(*next, " ");
    char value[LOG_LINE_SIZE];
    size_t size = 0;
    *field = (struct log_field){.name = at, .name_size = strcspn(at, "= "), .value = room};
    if (at[field->name_size] != '=') {
        return false;
    }
    at += field->name_size + 1;
    const bool is_quoted = *at == '"';
    at += is_quoted ? 1 : 0;
    const char *ends = is_quoted ? "\"" : " ";
    while (*at != '\0' && *at != ends[0] && size < sizeof(value)) {
        if (is_quoted) {
            value[size] = take_escaped(&at);
        } else {
            value[size] = *at;
            at++;
        }
        size++;
    }
    *next = at + (is_quoted && *at == '"' ? 1 : 0);
    field->value_size = copy_utf8(room, LOG_VALUE_SIZE, value, size);
    field->is_number = !is_quoted && size > 0 && size < 19;
    for (size_t i = 0; i < size && field->is_number; i++) {
        field->is_number = value[i] >= '0' && value[i] <= '9';
    }
    return true;
}
