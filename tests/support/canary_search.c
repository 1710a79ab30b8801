/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Searches folders for canaries, whole and in quarters, in every spelling of theirs: raw bytes, hex
 * lower and upper, Z85, base64 and base64url at each of the three ways bytes can lie in it; each of
 * them also behind backslash escapes (\xNN, \u00NN, \n ...), and hex with anything between digits.
 *
 *     canary_search LIST FOLDER...
 *
 * LIST has lines "secret HEX" and "body HEX". Prints for each folder what there was and how often
 * canaries were found, then where, never the canary itself. Exit codes: 0 none found, 1 found,
 * 66 nothing to search for or in.
 *
 * Where canaries belong they are not counted, and the file counts as skipped: all of them in *.key
 * files; those of bodies in *.body, *.result, *.joblog, stdout, *.stdout and core files.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <fts.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/keys/keys.h"
#include "tests/support/canary.h"

#define PIECES         4U
#define PREFIX_SIZE    8U /* of a piece, its place in the table */
#define PIECE_SIZE_MAX 16U
#define TABLE_BITS     23U
#define TABLE_COUNT    (1U << TABLE_BITS)
#define FILTER_BITS    26U
#define TOLD_MAX       40U
#define BASE64_SIZE    48U

enum kind {
    KIND_SECRET,
    KIND_BODY,
    KIND_COUNT,
};

enum spelling {
    SPELLING_RAW,
    SPELLING_HEX,
    SPELLING_HEX_UPPER,
    SPELLING_Z85,
    SPELLING_BASE64,
    SPELLING_COUNT,
};

enum view {
    VIEW_PLAIN,
    VIEW_UNESCAPED,
    VIEW_HEX_DIGITS,
    VIEW_COUNT,
};

struct piece {
    uint8_t text[PIECE_SIZE_MAX];
    uint8_t size; /* 0: a free place */
    uint8_t kind;
    uint8_t spelling;
};

struct place {
    uint64_t file_count;
    uint64_t size;
    uint64_t left_out_count[KIND_COUNT];
    uint64_t found_count[KIND_COUNT];
};

static const char *const kind_names[KIND_COUNT] = {"secret", "body"};
static const char *const spelling_names[SPELLING_COUNT] = {"raw", "hex", "HEX", "z85", "base64"};
static const char *const view_names[VIEW_COUNT] = {"", " behind escapes", " with gaps"};

static struct piece table[TABLE_COUNT];
static uint64_t filter[(1U << FILTER_BITS) / 64];
static uint32_t piece_count;
static uint64_t canary_counts[KIND_COUNT];
static uint32_t told_count;

/* ---- what to look for ---- */

static uint64_t hash_prefix(const uint8_t *text)
{
    uint64_t value;
    memcpy(&value, text, sizeof value);
    return value * UINT64_C(0x9e3779b97f4a7c15);
}

static bool is_in_filter(uint64_t hash)
{
    const uint64_t bit = hash >> (64U - FILTER_BITS);
    return (filter[bit / 64] >> (bit % 64) & 1U) != 0;
}

static void add_piece(const char *text, size_t size, enum kind kind, enum spelling spelling)
{
    const uint64_t hash = hash_prefix((const uint8_t *)text);
    const uint64_t bit = hash >> (64U - FILTER_BITS);
    uint32_t at = (uint32_t)(hash >> (64U - TABLE_BITS));
    if (piece_count == TABLE_COUNT / 2) {
        (void)fprintf(stderr, "canary_search: too many canaries\n");
        exit(EX_SOFTWARE); /* NOLINT(concurrency-mt-unsafe): there is one thread */
    }
    while (table[at].size != 0) {
        if (table[at].size == size && memcmp(table[at].text, text, size) == 0) {
            return; /* a canary that was noted twice */
        }
        at = (at + 1) & (TABLE_COUNT - 1);
    }
    filter[bit / 64] |= UINT64_C(1) << (bit % 64);
    memcpy(table[at].text, text, size);
    table[at].size = (uint8_t)size;
    table[at].kind = (uint8_t)kind;
    table[at].spelling = (uint8_t)spelling;
    piece_count++;
}

static void add_quarters(const char *text, size_t size, enum kind kind, enum spelling spelling)
{
    for (size_t i = 0; i < PIECES; i++) {
        add_piece(text + i * (size / PIECES), size / PIECES, kind, spelling);
    }
}

/* The characters of base64 that these bytes alone decide, when `before` others stand before them.
 */
static size_t print_base64(char out[BASE64_SIZE], const uint8_t canary[CANARY_SIZE], size_t before,
                           const char *digits)
{
    const size_t first_bit = 8 * before;
    const size_t end_bit = first_bit + (size_t)8 * CANARY_SIZE;
    size_t size = 0;
    for (size_t bit = (first_bit + 5) / 6 * 6; bit + 6 <= end_bit; bit += 6) {
        unsigned value = 0;
        for (size_t i = bit - first_bit; i < bit - first_bit + 6; i++) {
            value = value << 1U | ((unsigned)canary[i / 8] >> (7 - i % 8) & 1U);
        }
        out[size++] = digits[value];
    }
    return size;
}

static void add_canary(const uint8_t canary[CANARY_SIZE], enum kind kind)
{
#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    static const char *const alphabets[] = {LETTERS "+/", LETTERS "-_"};
    char text[KEY_HEX_SIZE];
    char base64[BASE64_SIZE];
    _Static_assert(CANARY_SIZE == KEY_SIZE, "a canary may be a key");
    canary_counts[kind]++;
    add_quarters((const char *)canary, CANARY_SIZE, kind, SPELLING_RAW);
    key_print(text, canary);
    add_quarters(text, KEY_HEX_SIZE - 1, kind, SPELLING_HEX);
    for (char *letter = text; *letter != '\0'; letter++) {
        *letter = (char)(*letter >= 'a' ? *letter - 'a' + 'A' : *letter);
    }
    add_quarters(text, KEY_HEX_SIZE - 1, kind, SPELLING_HEX_UPPER);
    key_print_z85(text, canary);
    add_quarters(text, KEY_Z85_SIZE - 1, kind, SPELLING_Z85);
    for (size_t i = 0; i < sizeof alphabets / sizeof alphabets[0]; i++) {
        for (size_t before = 0; before < 3; before++) {
            const size_t size = print_base64(base64, canary, before, alphabets[i]);
            add_quarters(base64, size, kind, SPELLING_BASE64);
        }
    }
#undef LETTERS
}

static int hex_value(unsigned letter)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *found = letter == '\0' ? NULL : strchr(digits, (int)letter);
    return found == NULL ? -1 : (int)((found - digits) % 16);
}

/* False: it is no such line. */
static bool add_line(const char *line)
{
    uint8_t canary[CANARY_SIZE];
    const enum kind kind = strncmp(line, "body ", 5) == 0 ? KIND_BODY : KIND_SECRET;
    if (kind == KIND_SECRET && strncmp(line, "secret ", 7) != 0) {
        return false;
    }
    const char *hex = strchr(line, ' ') + 1;
    if (strspn(hex, "0123456789abcdefABCDEF") != (size_t)2 * CANARY_SIZE) {
        return false;
    }
    for (size_t i = 0; i < CANARY_SIZE; i++) {
        canary[i] = (uint8_t)(hex_value((unsigned char)hex[2 * i]) * 16 +
                              hex_value((unsigned char)hex[2 * i + 1]));
    }
    add_canary(canary, kind);
    return true;
}

static bool read_list(const char *path)
{
    char line[256];
    bool is_good = true;
    FILE *list = fopen(path, "re");
    while (list != NULL && is_good && fgets(line, sizeof line, list) != NULL) {
        is_good = add_line(line);
    }
    if (list != NULL) {
        (void)fclose(list);
    }
    return list != NULL && is_good && canary_counts[KIND_SECRET] + canary_counts[KIND_BODY] > 0;
}

/* ---- looking ---- */

/* NULL: no piece begins here. */
static const struct piece *find_piece(const uint8_t *at, size_t left)
{
    const uint64_t hash = hash_prefix(at);
    if (!is_in_filter(hash)) {
        return NULL;
    }
    for (uint32_t i = (uint32_t)(hash >> (64U - TABLE_BITS)); table[i].size != 0;
         i = (i + 1) & (TABLE_COUNT - 1)) {
        if (table[i].size <= left && memcmp(table[i].text, at, table[i].size) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

static void tell(const char *path, size_t offset, const struct piece *piece, enum view view)
{
    if (told_count < TOLD_MAX) {
        (void)printf("found: %s: byte %zu: %s, %s%s\n", path, offset, kind_names[piece->kind],
                     spelling_names[piece->spelling], view_names[view]);
    }
    told_count++;
}

/* Pieces of a kind that touch are one find. */
static void search_view(const uint8_t *data, size_t size, const char *path, enum view view,
                        uint64_t found_counts[KIND_COUNT], const bool is_left_out[KIND_COUNT])
{
    size_t end = SIZE_MAX; /* of the last piece, which was of this kind */
    uint8_t kind = KIND_COUNT;
    size_t at = 0;
    while (at + PREFIX_SIZE <= size) {
        const struct piece *piece = find_piece(data + at, size - at);
        if (piece == NULL || is_left_out[piece->kind]) {
            at++;
            continue;
        }
        if (at != end || piece->kind != kind) {
            tell(path, at, piece, view);
            found_counts[piece->kind]++;
        }
        at += piece->size;
        end = at;
        kind = piece->kind;
    }
}

/* One escape at `text`, which begins with a backslash; returns its size, 0 if it is none. */
static size_t read_escape(const uint8_t *text, size_t left, uint8_t *byte)
{
    static const char letters[] = "n\nt\tr\rb\bf\fv\va\ae\x1b";
    const size_t digits_at = left >= 6 && text[1] == 'u' && text[2] == '0' && text[3] == '0' ? 4
                             : left >= 4 && text[1] == 'x'                                   ? 2
                                                                                             : 0;
    if (digits_at != 0) {
        const int high = hex_value(text[digits_at]);
        const int low = hex_value(text[digits_at + 1]);
        *byte = (uint8_t)(high * 16 + low);
        return high < 0 || low < 0 ? 0 : digits_at + 2;
    }
    if (left >= 4 && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' &&
        text[3] >= '0' && text[3] <= '7') {
        *byte = (uint8_t)((text[1] - '0') * 64 + (text[2] - '0') * 8 + text[3] - '0');
        return 4;
    }
    if (left < 2) {
        return 0;
    }
    *byte = text[1] == '0' ? '\0' : text[1];
    for (size_t i = 0; letters[i] != '\0'; i += 2) {
        *byte = text[1] == (uint8_t)letters[i] ? (uint8_t)letters[i + 1] : *byte;
    }
    return 2;
}

static size_t unescape(const uint8_t *data, size_t size, uint8_t *out)
{
    size_t out_size = 0;
    for (size_t i = 0; i < size;) {
        uint8_t byte = data[i];
        const size_t used = byte == '\\' ? read_escape(data + i, size - i, &byte) : 0;
        out[out_size++] = byte;
        i += used == 0 ? 1 : used;
    }
    return out_size;
}

static size_t keep_hex_digits(const uint8_t *data, size_t size, uint8_t *out)
{
    size_t out_size = 0;
    for (size_t i = 0; i < size; i++) {
        if (hex_value(data[i]) >= 0) {
            out[out_size++] = data[i];
        }
    }
    return out_size;
}

/* In all its views; a canary that is found in more than one counts once. */
static void search_data(const uint8_t *data, size_t size, const char *path, struct place *place,
                        const bool is_left_out[KIND_COUNT])
{
    uint64_t found_counts[VIEW_COUNT][KIND_COUNT] = {{0}};
    uint8_t *view = malloc(size);
    if (view == NULL) {
        (void)fprintf(stderr, "canary_search: %s: no memory\n", path);
        exit(EX_OSERR); /* NOLINT(concurrency-mt-unsafe): there is one thread */
    }
    search_view(data, size, path, VIEW_PLAIN, found_counts[VIEW_PLAIN], is_left_out);
    if (memchr(data, '\\', size) != NULL) {
        const size_t view_size = unescape(data, size, view);
        search_view(view, view_size, path, VIEW_UNESCAPED, found_counts[VIEW_UNESCAPED],
                    is_left_out);
    }
    const size_t view_size = keep_hex_digits(data, size, view);
    search_view(view, view_size, path, VIEW_HEX_DIGITS, found_counts[VIEW_HEX_DIGITS], is_left_out);
    free(view);
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        uint64_t most = 0;
        for (int i = 0; i < VIEW_COUNT; i++) {
            most = found_counts[i][kind] > most ? found_counts[i][kind] : most;
        }
        place->found_count[kind] += most;
    }
}

static bool is_like(const char *name, const char *const *patterns)
{
    for (; *patterns != NULL; patterns++) {
        if (fnmatch(*patterns, name, 0) == 0) {
            return true;
        }
    }
    return false;
}

static void search_file(const FTSENT *entry, struct place *place)
{
    static const char *const keys[] = {"*.key", NULL};
    static const char *const data_files[] = {"*.key", "*.body",   "*.result", "*.joblog", "stdout",
                                             "core",  "*.stdout", "core.*",   NULL};
    const bool is_left_out[KIND_COUNT] = {is_like(entry->fts_name, keys),
                                          is_like(entry->fts_name, data_files)};
    const int fd = open(entry->fts_accpath, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat state;
    if (fd == -1 || fstat(fd, &state) == -1) {
        (void)fprintf(stderr, "canary_search: %s: %s\n", entry->fts_path, strerrordesc_np(errno));
        exit(EX_NOINPUT); /* NOLINT(concurrency-mt-unsafe): there is one thread */
    }
    place->file_count++;
    place->size += (uint64_t)state.st_size;
    place->left_out_count[KIND_SECRET] += is_left_out[KIND_SECRET] ? 1 : 0;
    place->left_out_count[KIND_BODY] += is_left_out[KIND_BODY] ? 1 : 0;
    if (state.st_size > 0) {
        void *data = mmap(NULL, (size_t)state.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            (void)fprintf(stderr, "canary_search: %s: %s\n", entry->fts_path,
                          strerrordesc_np(errno));
            exit(EX_NOINPUT); /* NOLINT(concurrency-mt-unsafe): there is one thread */
        }
        search_data(data, (size_t)state.st_size, entry->fts_path, place, is_left_out);
        (void)munmap(data, (size_t)state.st_size);
    }
    (void)close(fd);
}

/* False: it cannot be walked. */
static bool search_folder(char *path, struct place *place)
{
    char *paths[] = {path, NULL};
    bool is_good = true;
    FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
    for (const FTSENT *entry; walk != NULL && (entry = fts_read(walk)) != NULL;) {
        if (entry->fts_info == FTS_F) {
            search_file(entry, place);
        } else if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR ||
                   entry->fts_info == FTS_NS) {
            (void)fprintf(stderr, "canary_search: %s: %s\n", entry->fts_path,
                          strerrordesc_np(entry->fts_errno));
            is_good = false;
        }
    }
    if (walk != NULL) {
        (void)fts_close(walk);
    }
    return walk != NULL && is_good;
}

static void print_place(const char *name, const struct place *place)
{
    (void)printf("%-12s %7" PRIu64 " %10" PRIu64 " %8" PRIu64 " %7" PRIu64 " %8" PRIu64 " %7" PRIu64
                 "\n",
                 name, place->file_count, place->size / 1024, place->found_count[KIND_SECRET],
                 place->left_out_count[KIND_SECRET], place->found_count[KIND_BODY],
                 place->left_out_count[KIND_BODY]);
}

int main(int argc, char **argv)
{
    struct place all = {0};
    if (argc < 3) {
        (void)fprintf(stderr, "usage: canary_search LIST FOLDER...\n");
        return EX_USAGE;
    }
    if (!read_list(argv[1])) {
        (void)fprintf(stderr, "canary_search: %s: not a list of canaries\n", argv[1]);
        return EX_NOINPUT;
    }
    (void)printf("canaries: %" PRIu64 " secrets, %" PRIu64 " bodies\n", canary_counts[KIND_SECRET],
                 canary_counts[KIND_BODY]);
    (void)printf("%-12s %7s %10s %8s %7s %8s %7s\n", "where", "files", "KiB", "secrets", "skipped",
                 "bodies", "skipped");
    for (int i = 2; i < argc; i++) {
        struct place place = {0};
        const char *slash = strrchr(argv[i], '/');
        if (!search_folder(argv[i], &place)) {
            return EX_NOINPUT;
        }
        print_place(slash == NULL ? argv[i] : slash + 1, &place);
        all.file_count += place.file_count;
        all.size += place.size;
        for (int kind = 0; kind < KIND_COUNT; kind++) {
            all.found_count[kind] += place.found_count[kind];
            all.left_out_count[kind] += place.left_out_count[kind];
        }
    }
    print_place("all", &all);
    if (told_count > TOLD_MAX) {
        (void)printf("... and %" PRIu32 " more\n", told_count - TOLD_MAX);
    }
    return all.found_count[KIND_SECRET] + all.found_count[KIND_BODY] > 0 ? EXIT_FAILURE
                                                                         : EXIT_SUCCESS;
}
