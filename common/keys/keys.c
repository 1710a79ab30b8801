/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE /* strerrordesc_np */
#include "common/keys/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#define FILE_SIZE_MAX 4096 /* bytes; ours have about 350 */
#define Z85_SIZE      (KEY_Z85_SIZE - 1)
#define Z85_BASE      85U
#define INDENT_SIZE   4U
#define NAME_MAX_SIZE (KEY_NAME_SIZE - 1)

struct key_pair {
    uint8_t public_key[KEY_SIZE];
    uint8_t secret_key[KEY_SIZE];
};

__attribute__((format(printf, 3, 4))) static enum treadle_status
refuse(char why[KEY_WHY_SIZE], enum treadle_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(why, KEY_WHY_SIZE, format, arguments);
    va_end(arguments);
    return status;
}

/* ---- Z85: https://rfc.zeromq.org/spec/32 ---- */

static const char z85_digits[Z85_BASE] = /* no NUL */
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/* Z85_BASE: it is none. */
static uint32_t z85_value(char letter)
{
    uint32_t value = 0;
    while (value < Z85_BASE && z85_digits[value] != letter) {
        value++;
    }
    return value;
}

static bool z85_decode(uint8_t key[KEY_SIZE], const char *text, size_t size)
{
    if (size != Z85_SIZE) {
        return false;
    }
    for (size_t i = 0; i < KEY_SIZE / 4; i++) {
        uint64_t value = 0;
        for (size_t j = 0; j < 5; j++) {
            const uint32_t digit = z85_value(text[i * 5 + j]);
            if (digit == Z85_BASE) {
                return false;
            }
            value = value * Z85_BASE + digit;
        }
        if (value > UINT32_MAX) {
            return false;
        }
        for (size_t j = 0; j < 4; j++) {
            key[i * 4 + j] = (uint8_t)(value >> (24 - 8 * j));
        }
    }
    return true;
}

/* Z85_SIZE characters, no NUL. */
static void z85_encode(char *text, const uint8_t key[KEY_SIZE])
{
    for (size_t i = 0; i < KEY_SIZE / 4; i++) {
        uint32_t value = 0;
        for (size_t j = 0; j < 4; j++) {
            value = value << 8 | key[i * 4 + j];
        }
        for (size_t j = 5; j > 0; j--) {
            text[i * 5 + j - 1] = z85_digits[value % Z85_BASE];
            value /= Z85_BASE;
        }
    }
}

/* ---- ZPL: https://rfc.zeromq.org/spec/4, as far as certificates go ---- */

/* Views into the file's text; NULL: not there. */
struct value {
    const char *text;
    size_t size;
};

struct certificate {
    struct value name;
    struct value public_key;
    struct value secret_key;
    bool is_malformed;
};

struct line {
    size_t level;
    struct value name;
    struct value value;
};

static bool is_name_letter(char letter)
{
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9') || (letter != '\0' && strchr("$-_@.&+/", letter));
}

static bool is_blank(char letter)
{
    return letter == ' ' || letter == '\t' || letter == '\r';
}

static size_t skip_blank(const struct value *text, size_t at)
{
    while (at < text->size && is_blank(text->text[at])) {
        at++;
    }
    return at;
}

/* Whether nothing but a comment follows. */
static bool is_end(const struct value *text, size_t at)
{
    at = skip_blank(text, at);
    return at == text->size || text->text[at] == '#';
}

/* Behind the '='. False: no value. */
static bool read_value(const struct value *text, size_t at, struct value *value)
{
    at = skip_blank(text, at);
    if (at == text->size) {
        return false;
    }
    const char quote = text->text[at];
    if (quote == '"' || quote == '\'') {
        at++;
        const char *end = memchr(text->text + at, quote, text->size - at);
        if (end == NULL) {
            return false;
        }
        *value = (struct value){text->text + at, (size_t)(end - (text->text + at))};
        return is_end(text, (size_t)(end - text->text) + 1);
    }
    const size_t start = at;
    while (at < text->size && !is_blank(text->text[at]) && text->text[at] != '#') {
        at++;
    }
    *value = (struct value){text->text + start, at - start};
    return at > start && is_end(text, at);
}

/* One line, not blank. False: it is no ZPL. */
static bool read_line(const struct value *text, struct line *line)
{
    size_t at = 0;
    *line = (struct line){.level = 0};
    while (at < text->size && text->text[at] == ' ') {
        at++;
    }
    line->level = at / INDENT_SIZE;
    if (at % INDENT_SIZE != 0) {
        return false;
    }
    line->name.text = text->text + at;
    while (at < text->size && is_name_letter(text->text[at])) {
        at++;
    }
    line->name.size = (size_t)(text->text + at - line->name.text);
    if (line->name.size == 0) {
        return false;
    }
    at = skip_blank(text, at);
    return at < text->size && text->text[at] == '=' ? read_value(text, at + 1, &line->value)
                                                    : is_end(text, at);
}

static bool is_named(const struct value *name, const char *text)
{
    return name->size == strlen(text) && memcmp(name->text, text, name->size) == 0;
}

static void keep(struct certificate *certificate, struct value *place, const struct value *value)
{
    certificate->is_malformed =
        certificate->is_malformed || value->text == NULL || place->text != NULL;
    *place = *value;
}

static void take_line(struct certificate *certificate, struct value *section,
                      const struct line *line)
{
    if (line->level == 0) {
        *section = line->name;
    } else if (line->level == 1 && is_named(section, "curve")) {
        if (is_named(&line->name, "public-key")) {
            keep(certificate, &certificate->public_key, &line->value);
        } else if (is_named(&line->name, "secret-key")) {
            keep(certificate, &certificate->secret_key, &line->value);
        }
    } else if (line->level == 1 && is_named(section, "metadata") && is_named(&line->name, "name")) {
        keep(certificate, &certificate->name, &line->value);
    }
}

static struct certificate read_certificate(const char *text, size_t size)
{
    struct certificate certificate = {.is_malformed =
                                          text == NULL || memchr(text, '\0', size) != NULL};
    struct value section = {"", 0};
    while (size > 0 && !certificate.is_malformed) {
        const char *end = memchr(text, '\n', size);
        const struct value one = {text, end == NULL ? size : (size_t)(end - text)};
        const size_t used = one.size + (end == NULL ? 0 : 1);
        struct line line;
        if (is_end(&one, 0)) {
            /* blank, or a comment */
        } else if (read_line(&one, &line)) {
            take_line(&certificate, &section, &line);
        } else {
            certificate.is_malformed = true;
        }
        text += used;
        size -= used;
    }
    return certificate;
}

/* ---- files ---- */

#define MAKE_ONE "make one with: treadle key gen NAME"

/* A file's text, where a secret may stand: in memory of sodium_malloc(). */
struct loaded {
    char *text;
    size_t size;
};

static bool hex_decode(uint8_t key[KEY_SIZE], const char *text);

/* Whether the path names something in a folder that is there; of Z85 the digits `/` and `.` look so
 * as well. */
static bool is_in_folder(const char *path)
{
    char folder[FILE_SIZE_MAX];
    struct stat state;
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path || (size_t)(slash - path) >= sizeof(folder)) {
        return false;
    }
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = '\0';
    const bool is_there = stat(folder, &state) == 0 && S_ISDIR(state.st_mode);
    sodium_memzero(folder, sizeof(folder));
    return is_there;
}

/* Whether a key may have been given in the place of a file's name: it could be a secret one, and
 * messages end up in logs. Who named it in a file may have got a folder put in front. */
static bool is_like_key(const char *text)
{
    static const size_t sizes[] = {KEY_HEX_SIZE - 1, Z85_SIZE};
    const size_t size = strlen(text);
    uint8_t key[KEY_SIZE];
    bool is_like = false;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && !is_like; i++) {
        const char *end = size < sizes[i] ? NULL : text + size - sizes[i];
        const bool is_whole = end == text;
        is_like = end != NULL && (is_whole ? !is_in_folder(text) : end[-1] == '/') &&
                  (hex_decode(key, end) || z85_decode(key, end, sizes[i]));
    }
    sodium_memzero(key, sizeof(key));
    return is_like;
}

static enum treadle_status refuse_for_errno(char why[KEY_WHY_SIZE], const char *path)
{
    if ((errno == ENOENT || errno == ENOTDIR) && is_like_key(path)) {
        return refuse(
            why, TREADLE_E_NOT_FOUND,
            "there is no such key file, and its name looks like a key itself, so it is not "
            "repeated here; if it was a secret one, others may have seen it: " MAKE_ONE);
    }
    if (errno == ENOENT || errno == ENOTDIR) {
        return refuse(why, TREADLE_E_NOT_FOUND, "%.300s: no such key file; " MAKE_ONE, path);
    }
    if (errno == ELOOP) {
        return refuse(why, TREADLE_E_INVALID,
                      "%.300s: is a symbolic link, which anybody may have put there; name the key "
                      "file itself",
                      path);
    }
    if (errno == ENXIO) {
        return refuse(why, TREADLE_E_INVALID, "%.300s: is not a regular file; name a key file",
                      path);
    }
    if (errno == EACCES) {
        return refuse(why, TREADLE_E_IO,
                      "%.300s: may not be read by the user who runs this; use a key file of your "
                      "own",
                      path);
    }
    return refuse(why, TREADLE_E_IO, "%.300s: cannot be read: %s", path, strerrordesc_np(errno));
}

static bool has_end(const char *name, const char *end)
{
    const size_t size = strlen(name);
    return size >= strlen(end) && strcmp(name + size - strlen(end), end) == 0;
}

/* What must hold of a file before a secret of it is trusted. */
static enum treadle_status check_secret_file(const struct stat *state, const char *path,
                                             char why[KEY_WHY_SIZE])
{
    if (state->st_uid != geteuid()) {
        return refuse(why, TREADLE_E_INVALID,
                      "%.300s: belongs to user %u, and this process runs as user %u; use a key "
                      "file of your own",
                      path, (unsigned)state->st_uid, (unsigned)geteuid());
    }
    if ((state->st_mode & 077U) != 0 && has_end(path, ".pub")) {
        return refuse(why, TREADLE_E_INVALID,
                      "%.300s: is a public key by its name; name the file that ends in .key", path);
    }
    if ((state->st_mode & 077U) != 0) {
        return refuse(why, TREADLE_E_INVALID,
                      "%.300s: others may read or write this secret key (mode %04o); make a new "
                      "one, or if nobody has: chmod 600 %.100s",
                      path, (unsigned)(state->st_mode & 07777U), path);
    }
    return TREADLE_OK;
}

static enum treadle_status check_file(int fd, bool is_secret, const char *path,
                                      char why[KEY_WHY_SIZE])
{
    struct stat state;
    if (fstat(fd, &state) == -1) {
        return refuse_for_errno(why, path);
    }
    if (!S_ISREG(state.st_mode)) {
        return refuse(why, TREADLE_E_INVALID, "%.300s: is %s; name a key file", path,
                      S_ISDIR(state.st_mode) ? "a directory" : "not a regular file");
    }
    if (state.st_size > FILE_SIZE_MAX) {
        return refuse(why, TREADLE_E_INVALID, "%.300s: is too large for a key file; " MAKE_ONE,
                      path);
    }
    return is_secret ? check_secret_file(&state, path, why) : TREADLE_OK;
}

/* All that the descriptor gives, up to the room there is; -1: errno. */
static ssize_t read_all(int fd, char *text, size_t room)
{
    size_t size = 0;
    while (size < room) {
        const ssize_t got = read(fd, text + size, room - size);
        if (got == -1 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got == 0 ? (ssize_t)size : -1;
        }
        size += (size_t)got;
    }
    return (ssize_t)size;
}

static enum treadle_status load(struct loaded *loaded, const char *path, bool is_secret,
                                char why[KEY_WHY_SIZE])
{
    const int no_link = is_secret ? O_NOFOLLOW : 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | no_link);
    if (fd == -1) {
        return refuse_for_errno(why, path);
    }
    enum treadle_status status = check_file(fd, is_secret, path, why);
    char *text = status == TREADLE_OK ? sodium_malloc(FILE_SIZE_MAX) : NULL;
    if (status == TREADLE_OK && text == NULL) {
        status = refuse(why, TREADLE_E_NOMEM, "%.300s: no memory for it", path);
    }
    if (text != NULL) {
        const ssize_t size = read_all(fd, text, FILE_SIZE_MAX);
        if (size == -1) {
            status = refuse_for_errno(why, path);
            sodium_free(text);
        } else {
            *loaded = (struct loaded){text, (size_t)size};
        }
    }
    (void)close(fd);
    return status;
}

/* ---- pairs ---- */

/* NULL without memory. Writable until pair_seal(). A process that is forked off finds zeros. */
static struct key_pair *pair_new(void)
{
    struct key_pair *pair = sodium_malloc(sizeof(*pair));
    const size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    if (pair != NULL) {
        uint8_t *page = (uint8_t *)pair - (uintptr_t)pair % page_size; /* it is within one */
        (void)madvise(page, page_size, MADV_WIPEONFORK);
    }
    return pair;
}

static struct key_pair *pair_seal(struct key_pair *pair)
{
    (void)sodium_mprotect_readonly(pair);
    return pair;
}

static enum treadle_status pair_from(struct key_pair *pair, const struct loaded *loaded,
                                     const char *path, char why[KEY_WHY_SIZE])
{
    uint8_t derived[KEY_SIZE];
    const struct certificate certificate = read_certificate(loaded->text, loaded->size);
    if (certificate.is_malformed || certificate.public_key.text == NULL) {
        return refuse(why, TREADLE_E_INVALID,
                      "%.300s: is not a key file, or was cut short; " MAKE_ONE, path);
    }
    if (certificate.secret_key.text == NULL) {
        return refuse(why, TREADLE_E_INVALID,
                      "%.300s: has a public key only; name the file that ends in .key", path);
    }
    if (!z85_decode(pair->public_key, certificate.public_key.text, certificate.public_key.size) ||
        !z85_decode(pair->secret_key, certificate.secret_key.text, certificate.secret_key.size)) {
        return refuse(why, TREADLE_E_INVALID,
                      "%.300s: a key in it is not 40 digits of Z85; " MAKE_ONE, path);
    }
    if (crypto_scalarmult_base(derived, pair->secret_key) != 0 ||
        sodium_memcmp(derived, pair->public_key, sizeof(derived)) != 0) {
        return refuse(why, TREADLE_E_INVALID,
                      "%.300s: its public key does not belong to its secret key; " MAKE_ONE, path);
    }
    return TREADLE_OK;
}

enum treadle_status key_pair_open(struct key_pair **out, const char *path, char why[KEY_WHY_SIZE])
{
    struct loaded loaded = {.text = NULL};
    why[0] = '\0';
    enum treadle_status status = load(&loaded, path, true, why);
    if (status != TREADLE_OK) {
        return status;
    }
    struct key_pair *pair = pair_new();
    status = pair == NULL ? refuse(why, TREADLE_E_NOMEM, "%.300s: no memory for it", path)
                          : pair_from(pair, &loaded, path, why);
    sodium_free(loaded.text);
    if (pair != NULL && status == TREADLE_OK) {
        *out = pair_seal(pair);
        pair = NULL;
    }
    sodium_free(pair);
    return status;
}

enum treadle_status key_pair_create(struct key_pair **out)
{
    struct key_pair *pair = pair_new();
    if (pair == NULL) {
        return TREADLE_E_NOMEM;
    }
    (void)crypto_box_keypair(pair->public_key, pair->secret_key);
    *out = pair_seal(pair);
    return TREADLE_OK;
}

void key_pair_close(struct key_pair **pair)
{
    /* In a process that was forked off, libsodium's marks are gone with the key: it would take that
     * for an overflow and end the process. */
    if (*pair != NULL && !sodium_is_zero((*pair)->public_key, KEY_SIZE)) {
        sodium_free(*pair); /* wipes */
    }
    *pair = NULL;
}

const uint8_t *key_pair_public(const struct key_pair *pair)
{
    return pair->public_key;
}

const uint8_t *key_pair_secret(const struct key_pair *pair)
{
    return pair->secret_key;
}

/* ---- writing ---- */

static bool is_key_name(const char *name)
{
    const size_t size = strlen(name);
    if (size == 0 || size > NAME_MAX_SIZE || name[0] == '.') {
        return false;
    }
    for (const char *letter = name; *letter != '\0'; letter++) {
        if (!is_name_letter(*letter) || strchr("$@&+/", *letter) != NULL) {
            return false;
        }
    }
    return true;
}

static enum treadle_status write_text(int fd, mode_t mode, const char *text, size_t size)
{
    while (size > 0) {
        const ssize_t written = write(fd, text, size);
        if (written == -1 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return TREADLE_E_IO;
        }
        text += written;
        size -= (size_t)written;
    }
    return fchmod(fd, mode) == 0 && fsync(fd) == 0 ? TREADLE_OK : TREADLE_E_IO;
}

static enum treadle_status write_public(int fd, const struct key_pair *pair, const char *name)
{
    char z85[KEY_Z85_SIZE];
    char text[FILE_SIZE_MAX];
    key_print_z85(z85, pair->public_key);
    const int size = snprintf(text, sizeof(text),
                              "#   ZeroMQ CURVE Public Certificate\n"
                              "#   Hand it over so that nobody can put another in its place.\n"
                              "\n"
                              "metadata\n"
                              "    name = \"%s\"\n"
                              "curve\n"
                              "    public-key = \"%s\"\n",
                              name, z85);
    return write_text(fd, 0644, text, (size_t)size);
}

static enum treadle_status write_secret(int fd, const struct key_pair *pair, const char *name)
{
    static const char end[] = "\"\n";
    char z85[KEY_Z85_SIZE];
    char *text = sodium_malloc(FILE_SIZE_MAX);
    if (text == NULL) {
        errno = ENOMEM;
        return TREADLE_E_IO;
    }
    key_print_z85(z85, pair->public_key);
    int size = snprintf(text, FILE_SIZE_MAX,
                        "#   ZeroMQ CURVE **Secret** Certificate\n"
                        "#   DO NOT PROVIDE THIS FILE TO OTHER USERS nor change its permissions.\n"
                        "\n"
                        "metadata\n"
                        "    name = \"%s\"\n"
                        "curve\n"
                        "    public-key = \"%s\"\n"
                        "    secret-key = \"",
                        name, z85);
    z85_encode(text + size, pair->secret_key); /* in its place: no copy to wipe */
    size += Z85_SIZE;
    memcpy(text + size, end, sizeof(end) - 1);
    const enum treadle_status status = write_text(fd, 0600, text, (size_t)size + sizeof(end) - 1);
    const int error = errno;
    sodium_free(text);
    errno = error;
    return status;
}

/* A file that was not there; -1: errno. */
static int create_file(int dir_fd, const char *name)
{
    return openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* Makes both files and writes them, or leaves neither. *stage: the file that it is about. */
static enum treadle_status write_both(const struct key_pair *pair, const char *name, int dir_fd,
                                      const char **stage)
{
    char names[2][KEY_NAME_SIZE + 4];
    int fds[2] = {-1, -1};
    enum treadle_status status = TREADLE_OK;
    int error = 0;
    (void)snprintf(names[0], sizeof(names[0]), "%s.key", name);
    (void)snprintf(names[1], sizeof(names[1]), "%s.pub", name);
    for (int i = 0; i < 2 && status == TREADLE_OK; i++) {
        *stage = i == 0 ? ".key" : ".pub";
        fds[i] = create_file(dir_fd, names[i]);
        status = fds[i] != -1 ? TREADLE_OK : errno == EEXIST ? TREADLE_E_CONFLICT : TREADLE_E_IO;
    }
    if (status == TREADLE_OK) {
        status = write_public(fds[1], pair, name);
    }
    if (status == TREADLE_OK) {
        *stage = ".key";
        status = write_secret(fds[0], pair, name);
    }
    error = errno;
    for (int i = 0; i < 2; i++) {
        if (fds[i] != -1) {
            (void)close(fds[i]);
        }
        if (fds[i] != -1 && status != TREADLE_OK) {
            (void)unlinkat(dir_fd, names[i], 0);
        }
    }
    if (status == TREADLE_OK) {
        (void)fsync(dir_fd); /* not every file system can */
    }
    errno = error;
    return status;
}

enum treadle_status key_pair_write(const struct key_pair *pair, const char *name, const char *dir,
                                   char why[KEY_WHY_SIZE])
{
    const char *stage = "";
    why[0] = '\0';
    if (has_end(name, ".key") || has_end(name, ".pub")) {
        return refuse(why, TREADLE_E_INVALID,
                      "'%.100s' is no name for a key; give it without .key or .pub, of which there "
                      "will be one each",
                      name);
    }
    if (!is_key_name(name)) {
        return refuse(why, TREADLE_E_INVALID,
                      "'%.100s' is no name for a key; give 1 to 64 characters of A-Z a-z 0-9 . _ - "
                      "and no dot first, and a directory with --dir",
                      name);
    }
    const int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd == -1 && errno == ENOENT) {
        return refuse(why, TREADLE_E_IO, "%.200s: no such directory; make it with: mkdir -p %.200s",
                      dir, dir);
    }
    if (dir_fd == -1) {
        return refuse(why, TREADLE_E_IO, "%.300s: %s; give a directory with --dir", dir,
                      strerrordesc_np(errno));
    }
    const enum treadle_status status = write_both(pair, name, dir_fd, &stage);
    if (status == TREADLE_E_CONFLICT) {
        (void)refuse(why, status,
                     "%.300s/%s%s: is there already, and a key is never overwritten; give another "
                     "name",
                     dir, name, stage);
    } else if (status != TREADLE_OK) {
        (void)refuse(why, status, "%.300s/%s%s: cannot be written: %s", dir, name, stage,
                     strerrordesc_np(errno));
    }
    (void)close(dir_fd);
    return status;
}

/* ---- public keys ---- */

static int hex_value(char digit)
{
    static const char digits[] = "0123456789abcdef";
    const char lower = (char)(digit >= 'A' && digit <= 'F' ? digit - 'A' + 'a' : digit);
    const char *found = lower == '\0' ? NULL : strchr(digits, lower);
    return found == NULL ? -1 : (int)(found - digits);
}

static bool hex_decode(uint8_t key[KEY_SIZE], const char *text)
{
    uint8_t decoded[KEY_SIZE];
    if (strlen(text) != KEY_HEX_SIZE - 1) {
        return false;
    }
    for (size_t i = 0; i < KEY_SIZE; i++) {
        const int high = hex_value(text[2 * i]);
        const int low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        decoded[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(key, decoded, sizeof(decoded));
    return true;
}

/* Printable ASCII, cut to its room. */
static void copy_name(char name[KEY_NAME_SIZE], const struct value *value)
{
    size_t size = 0;
    while (value->text != NULL && size < value->size && size < NAME_MAX_SIZE) {
        const char letter = value->text[size];
        name[size++] = (char)(letter >= ' ' && letter <= '~' ? letter : '?');
    }
    name[size] = '\0';
}

static enum treadle_status public_read(uint8_t key[KEY_SIZE], char name[KEY_NAME_SIZE],
                                       const char *text, bool is_secret_admitted,
                                       char why[KEY_WHY_SIZE])
{
    struct loaded loaded = {.text = NULL};
    uint8_t decoded[KEY_SIZE];
    why[0] = '\0';
    if (hex_decode(key, text)) {
        name[0] = '\0';
        return TREADLE_OK;
    }
    enum treadle_status status = load(&loaded, text, false, why);
    if (status == TREADLE_E_NOT_FOUND && !is_like_key(text)) {
        return refuse(why, status,
                      "%.300s: neither 64 hexadecimal digits nor a file; give one of them", text);
    }
    if (status != TREADLE_OK) {
        return status;
    }
    const struct certificate certificate = read_certificate(loaded.text, loaded.size);
    if (certificate.is_malformed || certificate.public_key.text == NULL ||
        !z85_decode(decoded, certificate.public_key.text, certificate.public_key.size)) {
        status = refuse(why, TREADLE_E_INVALID,
                        "%.300s: is not a key file, or was cut short; name a .pub file", text);
    } else if (certificate.secret_key.text != NULL && !is_secret_admitted) {
        status = refuse(why, TREADLE_E_INVALID,
                        "%.300s: has the secret key, which must not leave its owner; name the file "
                        "that ends in .pub",
                        text);
    } else {
        memcpy(key, decoded, sizeof(decoded));
        copy_name(name, &certificate.name);
    }
    sodium_free(loaded.text);
    return status;
}

enum treadle_status key_public_read_named(uint8_t key[KEY_SIZE], char name[KEY_NAME_SIZE],
                                          const char *text, char why[KEY_WHY_SIZE])
{
    return public_read(key, name, text, true, why);
}

enum treadle_status key_public_read(uint8_t key[KEY_SIZE], const char *text, char why[KEY_WHY_SIZE])
{
    char name[KEY_NAME_SIZE];
    return public_read(key, name, text, false, why);
}

void key_print(char hex[KEY_HEX_SIZE], const uint8_t key[KEY_SIZE])
{
    (void)sodium_bin2hex(hex, KEY_HEX_SIZE, key, KEY_SIZE);
}

void key_print_z85(char text[KEY_Z85_SIZE], const uint8_t key[KEY_SIZE])
{
    z85_encode(text, key);
    text[Z85_SIZE] = '\0';
}

void key_protect_process(void)
{
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}
