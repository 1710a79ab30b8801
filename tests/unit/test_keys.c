/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sodium.h>

#include "common/keys/keys.h"

/* Written by czmq 4.2.1: zcert_save(). */
static const char czmq_file[] =
    "#   ****  Generated on 2026-11-22 19:44:34 by CZMQ  ****\n"
    "#   ZeroMQ CURVE **Secret** Certificate\n"
    "#   DO NOT PROVIDE THIS FILE TO OTHER USERS nor change its permissions.\n"
    "\n"
    "metadata\n"
    "    name = \"alpha\"\n"
    "curve\n"
    "    public-key = \"L@znP&<}e:WEE]Mm{O8Cro>kE4NAxibOEA!d{dPi\"\n"
    "    secret-key = \"q>APx0c6ob]tC0M@x(?iIZ3VrOW[v@xM:[tyF<mT\"\n";

#define CURVE_PUBLIC "curve\n    public-key = \"L@znP&<}e:WEE]Mm{O8Cro>kE4NAxibOEA!d{dPi\"\n"
#define SECRET       "    secret-key = \"q>APx0c6ob]tC0M@x(?iIZ3VrOW[v@xM:[tyF<mT\"\n"
#define OTHER_SECRET "    secret-key = \"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6\"\n"

/* The pair of rfc.zeromq.org/spec/26, client. */
#define SPEC_PUBLIC_HEX "bb88471d65e2659b30c55a5321cebb5aab2b70a398645c26dca2b2fcb43fc518"
#define SPEC_PUBLIC_Z85 "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"

static char dir[64];
static char why[KEY_WHY_SIZE];

static const char *path_of(const char *name)
{
    static char path[4][256];
    static unsigned next;
    next = (next + 1) % 4;
    (void)snprintf(path[next], sizeof(path[next]), "%s/%s", dir, name);
    return path[next];
}

static int make_dir(void **unused)
{
    (void)unused;
    (void)snprintf(dir, sizeof(dir), "/tmp/treadle-keys-XXXXXX");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int remove_dir(void **unused)
{
    (void)unused;
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command); /* NOLINT(cert-env33-c,concurrency-mt-unsafe): a test's own folder */
}

static const char *given_a_file(const char *name, mode_t mode, const char *text)
{
    const char *path = path_of(name);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd != -1);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
    return path;
}

static struct key_pair *opened(const char *path)
{
    struct key_pair *pair = NULL;
    const enum treadle_status status = key_pair_open(&pair, path, why);
    if (status != TREADLE_OK) {
        print_message("%s\n", why);
    }
    assert_int_equal(status, TREADLE_OK);
    assert_string_equal(why, "");
    return pair;
}

static void then_it_is_refused(const char *path, enum treadle_status status, const char *word)
{
    struct key_pair *pair = NULL;
    assert_int_equal(key_pair_open(&pair, path, why), status);
    assert_null(pair);
    assert_memory_equal(why, path, strlen(path)); /* WHERE: ... */
    if (strstr(why, word) == NULL) {
        print_message("'%s' has not '%s'\n", why, word);
    }
    assert_non_null(strstr(why, word));
    assert_null(strstr(why, "q>APx0c6"));
}

/* ---- what is read ---- */

static void test_file_of_czmq_is_read(void **unused)
{
    (void)unused;
    char z85[KEY_Z85_SIZE];
    struct key_pair *pair = opened(given_a_file("czmq", 0600, czmq_file));
    key_print_z85(z85, key_pair_public(pair));
    assert_string_equal(z85, "L@znP&<}e:WEE]Mm{O8Cro>kE4NAxibOEA!d{dPi");
    key_print_z85(z85, key_pair_secret(pair));
    assert_string_equal(z85, "q>APx0c6ob]tC0M@x(?iIZ3VrOW[v@xM:[tyF<mT");
    key_pair_close(&pair);
    assert_null(pair);
}

static void test_mode_of_a_read_only_file_is_fine(void **unused)
{
    (void)unused;
    struct key_pair *pair = opened(given_a_file("key", 0400, CURVE_PUBLIC SECRET));
    key_pair_close(&pair);
}

static void test_key_that_others_may_read_or_write_is_refused(void **unused)
{
    (void)unused;
    static const mode_t modes[] = {0640, 0620, 0610, 0604, 0602, 0601, 0644, 0777};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        then_it_is_refused(given_a_file("key", modes[i], czmq_file), TREADLE_E_INVALID, "chmod");
    }
}

static void test_key_of_another_owner_is_refused(void **unused)
{
    (void)unused;
    if (geteuid() != 0) { /* the system's own files belong to another */
        then_it_is_refused("/etc/hostname", TREADLE_E_INVALID, "belongs to user 0");
        return;
    }
    const char *path = given_a_file("key", 0600, czmq_file);
    assert_int_equal(chown(path, 65534, 65534), 0);
    then_it_is_refused(path, TREADLE_E_INVALID, "belongs to user 65534");
}

static void test_symbolic_link_is_refused(void **unused)
{
    (void)unused;
    const char *path = given_a_file("key", 0600, czmq_file);
    const char *link = path_of("link");
    assert_int_equal(symlink(path, link), 0);
    then_it_is_refused(link, TREADLE_E_INVALID, "symbolic link");
    (void)unlink(path);
    then_it_is_refused(link, TREADLE_E_INVALID, "symbolic link"); /* nor one that leads nowhere */
}

static void test_what_is_no_regular_file_is_refused(void **unused)
{
    (void)unused;
    const char *folder = path_of("folder");
    const char *fifo = path_of("fifo");
    assert_int_equal(mkdir(folder, 0700), 0);
    then_it_is_refused(folder, TREADLE_E_INVALID, "a directory");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    then_it_is_refused(fifo, TREADLE_E_INVALID, "not a regular file"); /* and does not block */
    then_it_is_refused("/dev/null", TREADLE_E_INVALID, "not a regular file");
}

static void test_file_that_is_not_there_is_not_found(void **unused)
{
    (void)unused;
    then_it_is_refused(path_of("none"), TREADLE_E_NOT_FOUND, "treadle key gen");
    then_it_is_refused(path_of("none/none"), TREADLE_E_NOT_FOUND, "treadle key gen");
}

static void test_huge_file_is_refused(void **unused)
{
    (void)unused;
    const char *path = given_a_file("key", 0600, czmq_file);
    assert_int_equal(truncate(path, INT64_C(1) << 40), 0);
    then_it_is_refused(path, TREADLE_E_INVALID, "too large");
    assert_int_equal(truncate(path, 4097), 0);
    then_it_is_refused(path, TREADLE_E_INVALID, "too large");
}

static void test_file_cut_anywhere_is_refused(void **unused)
{
    (void)unused;
    char text[sizeof(czmq_file)];
    const size_t whole = sizeof(czmq_file) - 1 - 2; /* without the last quote and newline */
    for (size_t size = 0; size <= whole; size++) {
        struct key_pair *pair = NULL;
        memcpy(text, czmq_file, size);
        text[size] = '\0';
        const char *path = given_a_file("key", 0600, text);
        assert_int_equal(key_pair_open(&pair, path, why), TREADLE_E_INVALID);
    }
}

static void test_what_is_no_certificate_is_refused(void **unused)
{
    (void)unused;
    static const char *const texts[] = {
        "hello world\n",
        "{\"curve\": 1}\n",
        "curve\n  public-key = \"x\"\n" SECRET,      /* indented by two */
        "    public-key = \"x\"\n" SECRET,           /* in no section */
        CURVE_PUBLIC SECRET SECRET,                  /* twice */
        CURVE_PUBLIC "    secret-key\n",             /* no value */
        CURVE_PUBLIC "    secret-key = \n",          /* no value */
        "metadata\n    public-key = 1\n" SECRET,     /* in another section */
        "curve\n        public-key = \"x\"\n" SECRET /* too deep */
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        then_it_is_refused(given_a_file("key", 0600, texts[i]), TREADLE_E_INVALID,
                           "not a key file");
    }
    then_it_is_refused(given_a_file("key", 0600, CURVE_PUBLIC "    secret-key = \"abc\"\n"),
                       TREADLE_E_INVALID, "Z85");
    then_it_is_refused(given_a_file("key", 0600,
                                    CURVE_PUBLIC
                                    "    secret-key = \"####################"
                                    "####################\"\n"), /* 5 digits above 2^32 */
                       TREADLE_E_INVALID, "Z85");
}

static void test_pair_that_does_not_belong_together_is_refused(void **unused)
{
    (void)unused;
    then_it_is_refused(given_a_file("key", 0600, CURVE_PUBLIC OTHER_SECRET), TREADLE_E_INVALID,
                       "does not belong");
}

static void test_public_file_has_no_secret_to_open(void **unused)
{
    (void)unused;
    then_it_is_refused(given_a_file("key", 0600, CURVE_PUBLIC), TREADLE_E_INVALID, ".key");
    then_it_is_refused(given_a_file("a.pub", 0644, CURVE_PUBLIC), TREADLE_E_INVALID,
                       "name the file that ends in .key"); /* and not: chmod 600 */
}

/* ---- what is written ---- */

static mode_t mode_of(const char *path)
{
    struct stat state;
    assert_int_equal(stat(path, &state), 0);
    return state.st_mode & 07777U;
}

static void test_pair_that_was_written_is_read_back(void **unused)
{
    (void)unused;
    char name[KEY_NAME_SIZE];
    uint8_t public_key[KEY_SIZE];
    struct key_pair *pair = NULL;
    const mode_t mask = umask(0);
    assert_int_equal(key_pair_create(&pair), TREADLE_OK);
    assert_int_equal(key_pair_write(pair, "host-1.a_B", dir, why), TREADLE_OK);
    umask(mask);
    assert_int_equal(mode_of(path_of("host-1.a_B.key")), 0600);
    assert_int_equal(mode_of(path_of("host-1.a_B.pub")), 0644);
    struct key_pair *again = opened(path_of("host-1.a_B.key"));
    assert_memory_equal(key_pair_public(again), key_pair_public(pair), KEY_SIZE);
    assert_memory_equal(key_pair_secret(again), key_pair_secret(pair), KEY_SIZE);
    for (int i = 0; i < 2; i++) {
        const char *path = path_of(i == 0 ? "host-1.a_B.pub" : "host-1.a_B.key");
        assert_int_equal(key_public_read_named(public_key, name, path, why), TREADLE_OK);
        assert_memory_equal(public_key, key_pair_public(pair), KEY_SIZE);
        assert_string_equal(name, "host-1.a_B");
    }
    key_pair_close(&pair);
    key_pair_close(&again);
}

static void then_there_is_only(const char *name, const char *other)
{
    assert_int_equal(access(path_of(name), F_OK), 0);
    assert_int_equal(access(path_of(other), F_OK), -1);
}

static void test_nothing_is_ever_overwritten(void **unused)
{
    (void)unused;
    struct key_pair *pair = NULL;
    char text[16] = "";
    assert_int_equal(key_pair_create(&pair), TREADLE_OK);
    (void)given_a_file("a.key", 0600, "mine");
    assert_int_equal(key_pair_write(pair, "a", dir, why), TREADLE_E_CONFLICT);
    assert_non_null(strstr(why, "a.key: is there already"));
    then_there_is_only("a.key", "a.pub");
    (void)given_a_file("b.pub", 0600, "mine");
    assert_int_equal(key_pair_write(pair, "b", dir, why), TREADLE_E_CONFLICT);
    assert_non_null(strstr(why, "b.pub: is there already"));
    then_there_is_only("b.pub", "b.key");
    assert_int_equal(symlink(path_of("target"), path_of("c.key")), 0);
    assert_int_equal(key_pair_write(pair, "c", dir, why), TREADLE_E_CONFLICT);
    assert_int_equal(access(path_of("target"), F_OK), -1); /* nor is a link followed */
    const int fd = open(path_of("a.key"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, text, sizeof(text)), 4);
    assert_string_equal(text, "mine");
    close(fd);
    key_pair_close(&pair);
}

static void test_directory_that_is_none_is_told_with_what_to_do(void **unused)
{
    (void)unused;
    struct key_pair *pair = NULL;
    assert_int_equal(key_pair_create(&pair), TREADLE_OK);
    assert_int_equal(key_pair_write(pair, "a", path_of("none"), why), TREADLE_E_IO);
    assert_non_null(strstr(why, "none: no such directory; make it with: mkdir -p /"));
    (void)given_a_file("file", 0600, "");
    assert_int_equal(key_pair_write(pair, "a", path_of("file"), why), TREADLE_E_IO);
    assert_non_null(strstr(why, "file: Not a directory"));
    key_pair_close(&pair);
}

static void test_disk_that_is_full_leaves_neither_file(void **unused)
{
    (void)unused;
    const pid_t pid = fork();
    assert_true(pid != -1);
    if (pid == 0) {
        struct key_pair *pair = NULL;
        const struct rlimit limit = {1, 1};
        const bool is_told =
            signal(SIGXFSZ, SIG_IGN) != SIG_ERR && key_pair_create(&pair) == TREADLE_OK &&
            setrlimit(RLIMIT_FSIZE, &limit) == 0 &&
            key_pair_write(pair, "full", dir, why) == TREADLE_E_IO && strstr(why, "full.") != NULL;
        _exit(is_told ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(access(path_of("full.key"), F_OK), -1);
    assert_int_equal(access(path_of("full.pub"), F_OK), -1);
}

static void test_name_that_is_none_is_refused(void **unused)
{
    (void)unused;
    static const char *const names[] = {"",    ".a",       "..", "a/b",   "a b",   "a\n",
                                        "a\"", "\xc3\xa4", "a$", "a.key", "a.pub", ".key"};
    char long_name[66];
    struct key_pair *pair = NULL;
    assert_int_equal(key_pair_create(&pair), TREADLE_OK);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(key_pair_write(pair, names[i], dir, why), TREADLE_E_INVALID);
    }
    memset(long_name, 'a', sizeof(long_name) - 1);
    long_name[65] = '\0';
    assert_int_equal(key_pair_write(pair, long_name, dir, why), TREADLE_E_INVALID);
    long_name[64] = '\0';
    assert_int_equal(key_pair_write(pair, long_name, dir, why), TREADLE_OK);
    key_pair_close(&pair);
}

/* ---- public keys as texts ---- */

static void test_public_key_is_read_from_digits_of_either_case(void **unused)
{
    (void)unused;
    uint8_t key[KEY_SIZE];
    char text[KEY_HEX_SIZE];
    char z85[KEY_Z85_SIZE];
    assert_int_equal(key_public_read(key, SPEC_PUBLIC_HEX, why), TREADLE_OK);
    key_print(text, key);
    assert_string_equal(text, SPEC_PUBLIC_HEX);
    key_print_z85(z85, key);
    assert_string_equal(z85, SPEC_PUBLIC_Z85);
    for (size_t i = 0; text[i] != '\0'; i++) {
        text[i] = (char)(text[i] >= 'a' ? text[i] - 'a' + 'A' : text[i]);
    }
    assert_int_equal(key_public_read(key, text, why), TREADLE_OK);
    key_print(text, key);
    assert_string_equal(text, SPEC_PUBLIC_HEX);
}

static void test_text_that_is_neither_digits_nor_file_is_refused(void **unused)
{
    (void)unused;
    uint8_t key[KEY_SIZE];
    char text[KEY_HEX_SIZE + 1];
    (void)snprintf(text, sizeof(text), "%s", SPEC_PUBLIC_HEX);
    text[63] = '\0';
    assert_int_equal(key_public_read(key, text, why), TREADLE_E_NOT_FOUND);
    assert_non_null(strstr(why, "64 hexadecimal digits"));
    (void)snprintf(text, sizeof(text), "%.63sg", SPEC_PUBLIC_HEX);
    assert_int_equal(key_public_read(key, text, why), TREADLE_E_NOT_FOUND);
    assert_int_equal(key_public_read(key, given_a_file("x", 0644, "x"), why), TREADLE_E_INVALID);
    assert_int_equal(key_public_read(key, "", why), TREADLE_E_NOT_FOUND);
}

static void test_key_in_the_place_of_a_file_is_not_repeated(void **unused)
{
    (void)unused;
    static const char *const keys[] = {SPEC_PUBLIC_HEX, "q>APx0c6ob]tC0M@x(?iIZ3VrOW[v@xM:[tyF<mT"};
    struct key_pair *pair = NULL;
    uint8_t key[KEY_SIZE];
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        assert_int_equal(key_pair_open(&pair, keys[i], why), TREADLE_E_NOT_FOUND);
        assert_null(strstr(why, keys[i]));
        assert_non_null(strstr(why, "looks like a key"));
    }
    assert_int_equal(key_public_read(key, keys[1], why), TREADLE_E_NOT_FOUND);
    assert_null(strstr(why, keys[1]));
}

static void test_key_that_looks_like_a_path_is_not_repeated(void **unused)
{
    (void)unused;
    static const char *const keys[] = {"/>APx0c6ob]tC0M@x(?iIZ3VrOW[v@xM:[tyF<mT",
                                       ".>APx0c6ob]tC0M@x(?iIZ3VrOW/v@xM:[tyF<mT", SPEC_PUBLIC_HEX};
    struct key_pair *pair = NULL;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        assert_int_equal(key_pair_open(&pair, keys[i], why), TREADLE_E_NOT_FOUND);
        assert_null(strstr(why, "0c6ob"));
        assert_int_equal(key_pair_open(&pair, path_of(keys[i]), why), TREADLE_E_NOT_FOUND);
        assert_null(strstr(why, keys[i])); /* treadle.conf puts its own folder in front */
        assert_non_null(strstr(why, "looks like a key"));
    }
    assert_int_equal(key_pair_open(&pair, path_of("none.key"), why), TREADLE_E_NOT_FOUND);
    assert_non_null(strstr(why, "none.key"));
}

static void test_secret_file_is_not_taken_for_anothers_public_one(void **unused)
{
    (void)unused;
    uint8_t key[KEY_SIZE];
    char name[KEY_NAME_SIZE];
    const char *path = given_a_file("key", 0600, czmq_file);
    assert_int_equal(key_public_read(key, path, why), TREADLE_E_INVALID);
    assert_non_null(strstr(why, "name the file that ends in .pub"));
    assert_null(strstr(why, "q>APx0c6"));
    assert_int_equal(key_public_read_named(key, name, path, why), TREADLE_OK);
}

static void test_public_key_of_what_is_no_file_is_refused_at_once(void **unused)
{
    (void)unused;
    uint8_t key[KEY_SIZE];
    const char *fifo = path_of("fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(key_public_read(key, fifo, why), TREADLE_E_INVALID);
    assert_int_equal(key_public_read(key, dir, why), TREADLE_E_INVALID);
    assert_non_null(strstr(why, "is a directory"));
    assert_int_equal(key_public_read(key, given_a_file("x", 0644, ""), why), TREADLE_E_INVALID);
}

static void test_public_file_may_be_anybodys_and_a_link(void **unused)
{
    (void)unused;
    uint8_t key[KEY_SIZE];
    const char *link = path_of("link");
    assert_int_equal(symlink(given_a_file("pub", 0666, CURVE_PUBLIC), link), 0);
    assert_int_equal(key_public_read(key, link, why), TREADLE_OK);
}

static void test_name_in_a_file_is_made_safe_for_a_terminal(void **unused)
{
    (void)unused;
    uint8_t key[KEY_SIZE];
    char name[KEY_NAME_SIZE];
    const char *path =
        given_a_file("pub", 0644, "metadata\n    name = \"a\x1b[31mb\"\n" CURVE_PUBLIC);
    assert_int_equal(key_public_read_named(key, name, path, why), TREADLE_OK);
    assert_string_equal(name, "a?[31mb");
}

/* ---- memory ---- */

#define NEEDLE     24U /* from the middle: libraries may change the ends */
#define STEP       65536U
#define MASK       UINT64_C(0x5a5a5a5a5a5a5a5a)
#define REGION_MAX (UINT64_C(256) << 20) /* larger ones are a sanitizer's */

/* What is looked for, and where: masked, or the search would leave copies of its own, as vector
 * registers do that the dynamic linker saves on the stack. */
static uint64_t needle[NEEDLE / 8];
static uint64_t page[(STEP + NEEDLE) / 8];

static void mask(uint64_t *words, size_t size)
{
    for (size_t i = 0; i < (size + 7) / 8; i++) {
        words[i] ^= MASK;
    }
}

/* How often the needle begins in the first STEP bytes of the page. */
static unsigned count_in_page(size_t size)
{
    const uint8_t *start = (const uint8_t *)page;
    const uint8_t *from = start;
    unsigned count = 0;
    while ((from = memmem(from, size - (size_t)(from - start), needle, NEEDLE)) != NULL) {
        count += from < start + STEP ? 1 : 0;
        from++;
    }
    return count;
}

/* The same of all memory that this process can write to. A region is not read past its end: what
 * is next to it may be the very memory that a secret belongs in. */
static unsigned count_in_memory(void)
{
    unsigned count = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    assert_true(maps != NULL && memory != -1);
    while (fgets(line, sizeof(line), maps) != NULL) {
        uint64_t start = 0;
        uint64_t end = 0;
        char mode[5] = "";
        /* NOLINTNEXTLINE(cert-err34-c): the kernel writes it */
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, mode) != 3 ||
            strncmp(mode, "rw", 2) != 0 || end - start > REGION_MAX) {
            continue;
        }
        for (uint64_t at = start; at < end; at += STEP) {
            const size_t left = end - at < sizeof(page) ? (size_t)(end - at) : sizeof(page);
            const ssize_t got = pread(memory, page, left, (off_t)at);
            mask(page, sizeof(page));
            count += got > 0 ? count_in_page((size_t)got) : 0;
        }
    }
    close(memory);
    fclose(maps);
    return count;
}

static void test_no_copy_of_a_secret_stays_in_memory(void **unused)
{
    (void)unused;
    struct key_pair *pair = NULL;
    assert_int_equal(key_pair_create(&pair), TREADLE_OK);
    assert_int_equal(key_pair_write(pair, "wiped", dir, why), TREADLE_OK);
    memcpy(needle, key_pair_secret(pair) + 4, NEEDLE);
    mask(needle, NEEDLE);
    key_pair_close(&pair);
    pair = opened(path_of("wiped.key"));
    assert_int_equal(count_in_memory(), 0); /* it is in memory that is read-only */
    uint8_t *copy = malloc(NEEDLE);
    assert_non_null(copy);
    memcpy(copy, key_pair_secret(pair) + 4, NEEDLE);
    assert_int_equal(count_in_memory(), 1); /* the search does find what is there */
    sodium_memzero(copy, NEEDLE);
    free(copy);
    key_pair_close(&pair);
    assert_int_equal(count_in_memory(), 0);
}

static void test_process_that_is_forked_off_has_no_secret(void **unused)
{
    (void)unused;
    struct key_pair *pair = NULL;
    assert_int_equal(key_pair_create(&pair), TREADLE_OK);
    const pid_t pid = fork();
    assert_true(pid != -1);
    if (pid == 0) {
        const bool is_zero = sodium_is_zero(key_pair_secret(pair), KEY_SIZE) == 1;
        key_pair_close(&pair); /* and may end what it has */
        _exit(is_zero && pair == NULL ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(sodium_is_zero(key_pair_secret(pair), KEY_SIZE), 0);
    key_pair_close(&pair);
}

static void test_memory_that_cannot_be_locked_is_no_obstacle(void **unused)
{
    (void)unused;
    const char *path = given_a_file("key", 0600, czmq_file);
    const pid_t pid = fork();
    assert_true(pid != -1);
    if (pid == 0) {
        const struct rlimit none = {0, 0};
        struct key_pair *pair = NULL;
        _exit(setrlimit(RLIMIT_MEMLOCK, &none) == 0 && key_pair_open(&pair, path, why) == TREADLE_OK
                  ? 0
                  : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_writing_to_a_secret_ends_the_process(void **unused)
{
    (void)unused;
    struct key_pair *pair = NULL;
    assert_int_equal(key_pair_create(&pair), TREADLE_OK);
    const pid_t pid = fork();
    assert_true(pid != -1);
    if (pid == 0) {
        const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGSEGV, SIG_DFL);
        *(volatile uint8_t *)(uintptr_t)key_pair_secret(pair) = 1;
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    key_pair_close(&pair);
    key_pair_close(&pair); /* NULL is fine */
}

static void test_protected_process_leaves_no_core(void **unused)
{
    (void)unused;
    const pid_t pid = fork();
    assert_true(pid != -1);
    if (pid == 0) {
        struct rlimit limit = {1, 1};
        key_protect_process();
        _exit(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 && getrlimit(RLIMIT_CORE, &limit) == 0 &&
                      limit.rlim_cur == 0 && limit.rlim_max == 0
                  ? 0
                  : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_file_of_czmq_is_read),
        TEST(test_mode_of_a_read_only_file_is_fine),
        TEST(test_key_that_others_may_read_or_write_is_refused),
        TEST(test_key_of_another_owner_is_refused),
        TEST(test_symbolic_link_is_refused),
        TEST(test_what_is_no_regular_file_is_refused),
        TEST(test_file_that_is_not_there_is_not_found),
        TEST(test_huge_file_is_refused),
        TEST(test_file_cut_anywhere_is_refused),
        TEST(test_what_is_no_certificate_is_refused),
        TEST(test_pair_that_does_not_belong_together_is_refused),
        TEST(test_public_file_has_no_secret_to_open),
        TEST(test_pair_that_was_written_is_read_back),
        TEST(test_nothing_is_ever_overwritten),
        TEST(test_directory_that_is_none_is_told_with_what_to_do),
        TEST(test_disk_that_is_full_leaves_neither_file),
        TEST(test_name_that_is_none_is_refused),
        TEST(test_public_key_is_read_from_digits_of_either_case),
        TEST(test_text_that_is_neither_digits_nor_file_is_refused),
        TEST(test_key_in_the_place_of_a_file_is_not_repeated),
        TEST(test_key_that_looks_like_a_path_is_not_repeated),
        TEST(test_secret_file_is_not_taken_for_anothers_public_one),
        TEST(test_public_key_of_what_is_no_file_is_refused_at_once),
        TEST(test_public_file_may_be_anybodys_and_a_link),
        TEST(test_name_in_a_file_is_made_safe_for_a_terminal),
        TEST(test_no_copy_of_a_secret_stays_in_memory),
        TEST(test_process_that_is_forked_off_has_no_secret),
        TEST(test_memory_that_cannot_be_locked_is_no_obstacle),
        TEST(test_writing_to_a_secret_ends_the_process),
        TEST(test_protected_process_leaves_no_core),
    };
    return sodium_init() == -1 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
