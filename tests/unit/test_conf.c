/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/prng.h"
#include "common/conf/conf.h"

#define PLACE_BOX 2U
#define PLACE_BAG 4U
#define HEARD_MAX 4096

static const char *const colours[] = {"red", "green", "blue"};

enum { KEY_COUNT, KEY_SPAN, KEY_SIZE, KEY_FACTOR, KEY_COLOUR, KEY_TEXT, KEY_LIST, KEY_MANY };
static const struct conf_key keys[] = {
    [KEY_COUNT] = {"count", CONF_COUNT, .places = CONF_PLACE_TOP | PLACE_BOX, .min = 1, .max = 9},
    [KEY_SPAN] = {"span", CONF_SPAN, .places = CONF_PLACE_TOP, .min = 100, .max = 60000},
    [KEY_SIZE] = {"size", CONF_SIZE, .places = PLACE_BOX, .min = 1024, .max = UINT64_MAX},
    [KEY_FACTOR] = {"factor", CONF_FACTOR, .places = PLACE_BOX, .min = 1000, .max = 2500},
    [KEY_COLOUR] = {"colour", CONF_WORD, .places = CONF_PLACE_TOP, .max = 2, .words = colours},
    [KEY_TEXT] = {"text", CONF_TEXT, .places = CONF_PLACE_TOP, .expected = "a text"},
    [KEY_LIST] = {"list", CONF_TEXT, CONF_LIST, CONF_PLACE_TOP | PLACE_BOX, .expected = "a list"},
    [KEY_MANY] = {"many", CONF_TEXT, CONF_ONE_OR_LIST, CONF_PLACE_TOP, .expected = "some"},
};
static const struct conf_section sections[] = {{"box", PLACE_BOX}, {"bag", PLACE_BAG}};

static char folder[] = "/tmp/treadle-conf-XXXXXX";
static char path[64];
static struct conf_mistakes mistakes;
static bool has_sections;
static char heard[HEARD_MAX]; /* "name@line: value@line value@line\n" of every setting */
static int depth;

static int make_folder(void **unused)
{
    (void)unused;
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    (void)snprintf(path, sizeof(path), "%s/a.conf", folder);
    return 0;
}

static int remove_folder(void **unused)
{
    (void)unused;
    (void)unlink(path);
    return rmdir(folder);
}

static int set_up(void **unused)
{
    (void)unused;
    has_sections = true;
    return 0;
}

__attribute__((format(printf, 1, 2))) static void hear(const char *format, ...)
{
    const size_t size = strlen(heard);
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(heard + size, sizeof(heard) - size, format, arguments);
    va_end(arguments);
}

static void on_setting(void *context, const struct conf_setting *setting)
{
    assert_ptr_equal(context, &heard);
    assert_true(setting->value_count >= 1);
    assert_true((keys[setting->key].places & setting->place) != 0);
    assert_int_equal(setting->place == CONF_PLACE_TOP, depth == 0);
    hear("%s@%u:", keys[setting->key].name, setting->line);
    for (size_t i = 0; i < setting->value_count; i++) {
        hear(" %s@%u", setting->values[i], setting->value_lines[i]);
    }
    hear("\n");
}

static void on_section(void *context, uint32_t line, const struct conf_section *section,
                       const char *title)
{
    assert_ptr_equal(context, &heard);
    assert_int_equal(depth, 0);
    depth++;
    hear("%s(%s)@%u\n", section->name, title, line);
}

static void on_section_end(void *context)
{
    assert_ptr_equal(context, &heard);
    assert_int_equal(depth, 1);
    depth--;
    hear("end\n");
}

static void given_bytes(const void *bytes, size_t size)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void given_a_file(const char *text)
{
    given_bytes(text, strlen(text));
}

static void when_it_is_read(void)
{
    const struct conf_reader reader = {
        .keys = keys,
        .key_count = sizeof(keys) / sizeof(keys[0]),
        .sections = sections,
        .section_count = has_sections ? sizeof(sections) / sizeof(sections[0]) : 0,
        .manual = "a.conf(5)",
        .context = &heard,
        .on_setting = on_setting,
        .on_section = on_section,
        .on_section_end = on_section_end,
    };
    heard[0] = '\0';
    mistakes.count = 0;
    conf_read(path, &reader, &mistakes);
    assert_int_equal(depth, 0);
}

/* All mistakes, as FILE:LINE: lines without the file. */
static const char *told(void)
{
    static char text[CONF_MISTAKES_MAX * (CONF_TEXT_SIZE + 16)];
    char line[CONF_TEXT_SIZE + 16];
    text[0] = '\0';
    for (uint32_t i = 0; i < mistakes.count && i < CONF_MISTAKES_MAX; i++) {
        conf_print_mistake(line, sizeof(line), "", &mistakes.at[i]);
        (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\n", line + 1);
    }
    return text;
}

#define then_is_heard(text)                                                                        \
    do {                                                                                           \
        when_it_is_read();                                                                         \
        assert_string_equal(told(), "");                                                           \
        assert_string_equal(heard, text);                                                          \
    } while (0)

#define then_is_told(text)                                                                         \
    do {                                                                                           \
        when_it_is_read();                                                                         \
        assert_string_equal(told(), text);                                                         \
    } while (0)

/* ---- good files ---- */

static void test_settings_and_sections_come_in_order_with_their_lines(void **unused)
{
    (void)unused;
    given_a_file("# first\n"
                 "text = \"a b\" // after\n"
                 "many = {one,\n"
                 "  'two', # between\n"
                 "  \"three\", /* over\n"
                 "  lines */ four,\r\n"
                 "}\r\n"
                 "box \"the \\\"first\\\"\" { list = {a} count = 3 size=1KiB }\n"
                 "box\n{\n  factor = 1.5 }\n"
                 "bag \"x\" { }");
    then_is_heard("text@2: a b@2\n"
                  "many@3: one@3 two@4 three@5 four@6\n"
                  "box(the \"first\")@8\nlist@8: a@8\ncount@8: 3@8\nsize@8: 1KiB@8\nend\n"
                  "box()@9\nfactor@11: 1.5@11\nend\n"
                  "bag(x)@12\nend\n");
}

static void test_a_key_may_stand_once_in_every_section(void **unused)
{
    (void)unused;
    given_a_file("count = 1\nbox a { count = 2 }\nbox b { count = 3 }\n");
    then_is_heard("count@1: 1@1\nbox(a)@2\ncount@2: 2@2\nend\nbox(b)@3\ncount@3: 3@3\nend\n");
}

static void test_quotes_say_what_is_taken_as_it_stands(void **unused)
{
    (void)unused;
    given_a_file("many = {\"a\\\\b\\\"c\\n\", 'd\\e${HOME}', '\"', \"'\", \"#\", \"//\", '\\'', "
                 "tcp://[::1]:1}\n");
    then_is_heard("many@1: a\\b\"c\n@1 d\\e${HOME}@1 \"@1 '@1 #@1 //@1 '@1 tcp://[::1]:1@1\n");
}

/* ---- mistakes ---- */

static const struct {
    const char *text; /* behind it stands "count = 5" in a line of its own */
    const char *told;
} mistake_cases[] = {
    {"cuont = 1\n", "1: cuont: no such key; did you mean count?\n"},
    {"weather = 1\n", "1: weather: no such key; expected one of a.conf(5)\n"},
    {"size = 1KiB\n", "1: size: no such key; expected one of a.conf(5)\n"},
    {"\"text\" = a\n", "1: \"\\\"text\\\"\": no such key; did you mean text?\n"},
    {"text = a\n\ntext = b\n", "3: text stands in line 1 already; expected it once\n"},
    {"text =\n", "1: text: no value; expected a text\n"},
    {"text = = a\n", "1: text: no value; expected a text\n"},
    {"text = , a\n", "1: text: no value; expected a text\n"},
    {"text = }\n", "1: text: no value; expected a text\n"},
    {"text\n", "1: text: no '='; expected text = VALUE\n"},
    {"text a\n", "1: text: no '='; expected text = VALUE\n"},
    {"many {a,\n b}\n", "1: many: no '='; expected many = VALUE\n"},
    {"text = a b\n", "1: text: more behind its value; expected one setting a line\n"},
    {"text = a, b\n", "1: text: more behind its value; expected one setting a line\n"},
    {"text = a span = 1s\n", "1: two settings in one line; expected one a line\n"},
    {"text = {a}\n", "1: text: a list; expected a text\n"},
    {"list = a\n", "1: list: not a list; expected a list\n"},
    {"many = {}\n", "1: many: an empty list; expected some\n"},
    {"many = {a b}\n", "1: two values without a comma; expected one between them\n"},
    {"many = {a,\n\"b\"\n\"c\"}\n", "3: two values without a comma; expected one between them\n"},
    {"many = {a,,\nb}\n", "1: a comma without a value; expected one before it\n"},
    {"many = {,}\n", "1: a comma without a value; expected one before it\n"},
    {"\nmany = {a,\n", "2: a list is not closed; expected } at its end\n"},
    {"many = {a\n  b\n", "1: a list is not closed; expected } at its end\n"
                         "2: two values without a comma; expected one between them\n"},
    {"many = {{a}}\n", "1: a list is not closed; expected } at its end\n"},
    {"text = \"a\n", "1: a string is not closed; expected its second quote on the same line\n"},
    {"text = 'a\n", "1: a string is not closed; expected its second quote on the same line\n"},
    {"text = \"a\\\n",
     "1: a backslash in a string; expected \\\\, \\\", \\n or \\t, or single quotes\n"},
    {"text = \"${HOME}\"\n",
     "1: ${...} is not expanded; expected the value itself, or single quotes\n"},
    {"text = 'a\x01'\n", "1: a control character in a string; expected text\n"},
    {"text = a$ ; b\n", "1: unexpected character $; expected NAME = VALUE, with the value in "
                        "quotes\n"},
    {"text += a\n", "1: unexpected character +; expected NAME = VALUE, with the value in "
                    "quotes\n"},
    {"(\n(\n", "1: unexpected character (; expected NAME = VALUE, with the value in quotes\n"
               "2: unexpected character (; expected NAME = VALUE, with the value in quotes\n"},
    {"= 5\n", "1: unexpected =; expected NAME = VALUE\n"},
    {"\n}\n", "2: unexpected }; expected NAME = VALUE\n"},
    {"{a = 3}\n", "1: unexpected {; expected NAME = VALUE\n"},
    {"it is so\n", "1: it: neither a setting nor a section; expected NAME = VALUE or NAME "
                   "\"TITLE\" { ... }\n"},
    /* sections */
    {"bxo a {\n count = 1\n cuont = 2\n span = 1s\n}\n",
     "1: bxo: no such section; did you mean box?\n"
     "3: cuont: no such key of a box; did you mean count?\n"
     "4: span: no such key of a box; expected one of a.conf(5)\n"},
    {"weather a {\n sun = 1\n rain\n}\n",
     "1: weather: no such section; expected one of a.conf(5)\n"},
    {"bag a {\n count = 1 }\n", "2: count: a bag has no keys; expected }\n"},
    {"box a {\n count = 1\n\n count = 2\n}\n",
     "4: count stands in line 2 already; expected it once\n"},
    {"box a {\n list {a}\n}\n", "2: list: no '='; expected list = VALUE\n"},
    {"box a {\n count\n}\n", "2: count: no '='; expected count = VALUE\n"},
    {"box a {\n it is so }\n", "2: it: not a setting; expected NAME = VALUE\n"},
    {"box a {\n inner b {\n count = 1\n cuont = 2\n deeper { }\n }\n cuont = 3\n}\n",
     "2: inner: a section in a section; expected NAME = VALUE\n"
     "7: cuont: no such key of a box; did you mean count?\n"},
    {"weather a {\n sun {\n count = 1 }\n}\n",
     "1: weather: no such section; expected one of a.conf(5)\n"},
    {"\nbox a {\nbox b { }\n", "2: a section is not closed; expected } before line 3\n"},
    {"box \"a {\n}\n", "1: a string is not closed; expected its second quote on the same line\n"
                       "2: unexpected }; expected NAME = VALUE\n"},
};

static void test_each_mistake_is_told_with_its_line_and_the_rest_is_read(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(mistake_cases) / sizeof(mistake_cases[0]); i++) {
        char text[256];
        char rest[32];
        uint32_t line = 1;
        for (const char *next = mistake_cases[i].text; *next != '\0'; next++) {
            line += *next == '\n' ? 1 : 0;
        }
        (void)snprintf(text, sizeof(text), "%scount = 5\n", mistake_cases[i].text);
        (void)snprintf(rest, sizeof(rest), "count@%u: 5@%u\n", line, line);
        given_a_file(text);
        when_it_is_read();
        if (strstr(heard, rest) == NULL) {
            print_error("%s: the rest is not read, but:\n%s", text, heard);
        }
        assert_non_null(strstr(heard, rest));
        assert_string_equal(told(), mistake_cases[i].told);
    }
}

static void test_what_is_never_closed_is_told_where_it_began(void **unused)
{
    (void)unused;
    given_a_file("count = 1\n/* span = 1s\n");
    then_is_told("2: a comment is not closed; expected */ at its end\n");
    given_a_file("count = 1\nbox a {\ncount = 2\n");
    then_is_told("2: a section is not closed; expected } at its end\n");
    given_a_file("count = 1\nmany = {\n");
    then_is_told("2: a list is not closed; expected } at its end\n");
}

static void test_a_program_without_sections_says_so_of_none(void **unused)
{
    (void)unused;
    has_sections = false;
    given_a_file("box { }\nbox \"a\" {\n count = 1\n cuont = 2\n list = a\n inner { span = 1 }\n"
                 "}\nit is so\n");
    then_is_told("1: box: a section, and there are none here; expected NAME = VALUE\n"
                 "2: box: a section, and there are none here; expected NAME = VALUE\n"
                 "8: it: not a setting; expected NAME = VALUE\n");
    assert_string_equal(heard, "");
    given_a_file("box {\n count = 1\n");
    then_is_told("1: box: a section, and there are none here; expected NAME = VALUE\n"
                 "1: a section is not closed; expected } at its end\n");
}

static void test_mistakes_are_kept_in_order_of_their_lines_and_all_counted(void **unused)
{
    (void)unused;
    mistakes.count = 0;
    for (uint32_t i = 0; i < 2 * CONF_MISTAKES_MAX; i++) {
        conf_add_mistake(&mistakes, 1000 - i, "line %u; expected none", 1000 - i);
    }
    conf_add_mistake(&mistakes, CONF_LINE_WHOLE, "all");
    conf_add_mistake(&mistakes, CONF_LINE_WHOLE, "all"); /* once is enough */
    conf_add_mistake(&mistakes, CONF_LINE_GIVEN, "a flag");
    assert_int_equal(mistakes.count, 2 * CONF_MISTAKES_MAX + 2);
    assert_int_equal(mistakes.at[0].line, CONF_LINE_WHOLE);
    for (uint32_t i = 1; i < CONF_MISTAKES_MAX; i++) {
        assert_int_equal(mistakes.at[i].line, 1000 - 2 * CONF_MISTAKES_MAX + i);
    }
}

static void test_reading_ends_when_nobody_would_read_more_mistakes(void **unused)
{
    (void)unused;
    char text[8 * CONF_MISTAKES_TOLD_MAX];
    for (uint32_t i = 0; i < sizeof(text); i++) {
        text[i] = i % 2 == 0 ? '=' : '\n';
    }
    given_bytes(text, sizeof(text));
    when_it_is_read();
    assert_int_equal(mistakes.count, CONF_MISTAKES_TOLD_MAX);
    assert_int_equal(mistakes.at[0].line, 1);
}

static void test_a_list_has_a_limit(void **unused)
{
    (void)unused;
    char text[2 * CONF_VALUES_MAX + 64] = "many = {a";
    size_t size = strlen(text);
    for (int i = 1; i < CONF_VALUES_MAX; i++) {
        text[size++] = ',';
        text[size++] = 'a';
    }
    (void)snprintf(text + size, sizeof(text) - size, "}\n");
    given_a_file(text);
    when_it_is_read();
    assert_int_equal(mistakes.count, 0);
    (void)snprintf(text + size, sizeof(text) - size, ",\na}\n");
    given_a_file(text);
    then_is_told("2: a list too long; expected at most 256 values\n");
    assert_string_equal(heard, "");
}

/* ---- values ---- */

static void test_a_value_has_a_type_and_a_range(void **unused)
{
    (void)unused;
    static const struct {
        size_t key;
        const char *text;
        uint64_t value;
        const char *why; /* NULL: it is good */
    } cases[] = {
        {KEY_COUNT, "9", 9, NULL},
        {KEY_COUNT, "0", 0, "count: \"0\" is too small; expected a whole number from 1 to 9"},
        {KEY_COUNT, "10", 0, "count: \"10\" is too large; expected a whole number from 1 to 9"},
        {KEY_COUNT, "", 0, "count: \"\" is not understood; expected a whole number from 1 to 9"},
        {KEY_COUNT, "99999999999999999999", 0,
         "count: \"99999999999999999999\" is not understood; expected a whole number from 1 to 9"},
        {KEY_SPAN, "1m", 60000, NULL},
        {KEY_SPAN, "5", 0,
         "span: \"5\" is not understood; expected a span from 100ms to 1m, such as 500ms, 30s or "
         "5m"},
        {KEY_SIZE, "16777215TiB", UINT64_C(16777215) << 40, NULL},
        {KEY_SIZE, "1B", 0,
         "size: 1B is too small; expected a size from 1KiB, such as 64KiB, 4MiB or 1GiB"},
        {KEY_FACTOR, "2.125", 2125, NULL},
        {KEY_FACTOR, "2", 2000, NULL},
        {KEY_FACTOR, "2.501", 0,
         "factor: 2.501 is too large; expected a factor from 1 to 2.5, such as 2 or 1.5"},
        {KEY_FACTOR, "2.", 0,
         "factor: 2. is not understood; expected a factor from 1 to 2.5, such as 2 or 1.5"},
        {KEY_FACTOR, "1.1234", 0,
         "factor: 1.1234 is not understood; expected a factor from 1 to 2.5, such as 2 or 1.5"},
        {KEY_COLOUR, "blue", 2, NULL},
        {KEY_COLOUR, "Blue", 0, "colour: Blue is not understood; expected red, green or blue"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char why[CONF_TEXT_SIZE] = "";
        uint64_t value = 77;
        const bool is_good = conf_parse_value(&keys[cases[i].key], cases[i].text, &value, why);
        assert_int_equal(is_good, cases[i].why == NULL);
        assert_int_equal(value, is_good ? cases[i].value : 77);
        assert_string_equal(why, is_good ? "" : cases[i].why);
    }
}

/* ---- files that are none ---- */

static void test_a_leading_tilde_is_the_home_in_the_name_of_a_file(void **unused)
{
    static const struct {
        const char *text;
        const char *home;
        const char *name;
    } cases[] = {
        {"~/a.key", "/home/me", "/home/me/a.key"},
        {"~/a.key", NULL, "~/a.key"},
        {"~me/a.key", "/home/me", "~me/a.key"},
        {"/a/~/b", "/home/me", "/a/~/b"},
        {"~", "/home/me", "~"},
        {"none", "/home/me", "none"},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *name = conf_file_name(cases[i].text, cases[i].home);
        assert_string_equal(name, cases[i].name);
        free(name);
    }
}

static void test_what_is_no_file_is_told_and_nobody_waits_for_it(void **unused)
{
    (void)unused;
    char kept[sizeof(path)];
    (void)unlink(path);
    then_is_told(" cannot be read: No such file or directory; expected a file of NAME = VALUE "
                 "lines\n");
    assert_int_equal(mkfifo(path, 0600), 0);
    then_is_told(" is not a regular file; expected a file of NAME = VALUE lines\n");
    (void)unlink(path);
    memcpy(kept, path, sizeof(path));
    (void)snprintf(path, sizeof(path), "%s", folder);
    then_is_told(" is a directory; expected a file of NAME = VALUE lines\n");
    memcpy(path, kept, sizeof(path));
    given_a_file("");
    assert_int_equal(truncate(path, CONF_FILE_SIZE_MAX + 1), 0);
    then_is_told(" is too large; expected at most 1MiB\n");
    given_bytes("\n=\n\0", 4);
    then_is_told("3: a zero byte; expected a text file\n");
}

/* ---- whatever the bytes ---- */

static const char sample[] = "# a\nmany = {\"a\", 'b'} // c\n/* two\n lines */ count = 3\n"
                             "box \"x\" { list = {a,\n b} factor = 1.5\n size = 4KiB }\n"
                             "text = \"\\\\ \\n\"\nbag y {\n}\nspan = 1s\n";

static size_t mutate(struct prng *prng, char *text, size_t size, size_t size_max)
{
    static const char marks[] = "\"'{}=,#/*\\$\n\r\t ()+[]:;.-_a0\x01\xff";
    const uint64_t times = prng_between(prng, 1, 8);
    for (uint64_t i = 0; i < times && size > 0; i++) {
        const size_t at = prng_below(prng, size);
        const uint64_t what = prng_below(prng, 4);
        if (what == 0) {
            memmove(text + at, text + at + 1, size - at - 1);
            size--;
        } else if (what == 1 && size < size_max) {
            memmove(text + at + 1, text + at, size - at);
            text[at] = marks[prng_below(prng, sizeof(marks) - 1)];
            size++;
        } else if (what == 2) {
            text[at] = marks[prng_below(prng, sizeof(marks) - 1)];
        } else {
            size = prng_below(prng, 8) == 0 ? at : size;
        }
    }
    return size;
}

static void test_whatever_the_bytes_every_mistake_has_a_line_of_the_file(void **unused)
{
    (void)unused;
    struct prng prng;
    uint32_t good_count = 0;
    prng_seed(&prng, 1);
    for (int i = 0; i < 1000; i++) {
        char text[sizeof(sample) + 16];
        memcpy(text, sample, sizeof(sample) - 1);
        has_sections = i % 4 != 0;
        given_bytes(text, mutate(&prng, text, sizeof(sample) - 1, sizeof(text)));
        when_it_is_read();
        good_count += mistakes.count == 0 ? 1 : 0;
        for (uint32_t j = 0; j < mistakes.count && j < CONF_MISTAKES_MAX; j++) {
            assert_true(mistakes.at[j].line >= 1 && mistakes.at[j].line <= 24);
            assert_true(strstr(mistakes.at[j].text, "; expected ") != NULL ||
                        strstr(mistakes.at[j].text, "; did you mean ") != NULL);
        }
    }
    assert_true(good_count > 0 && good_count < 1000);
    has_sections = true;
    given_a_file(sample); /* whatever came before, this is still good */
    when_it_is_read();
    assert_string_equal(told(), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_settings_and_sections_come_in_order_with_their_lines, set_up),
        cmocka_unit_test_setup(test_a_key_may_stand_once_in_every_section, set_up),
        cmocka_unit_test_setup(test_quotes_say_what_is_taken_as_it_stands, set_up),
        cmocka_unit_test_setup(test_each_mistake_is_told_with_its_line_and_the_rest_is_read,
                               set_up),
        cmocka_unit_test_setup(test_what_is_never_closed_is_told_where_it_began, set_up),
        cmocka_unit_test_setup(test_a_program_without_sections_says_so_of_none, set_up),
        cmocka_unit_test_setup(test_mistakes_are_kept_in_order_of_their_lines_and_all_counted,
                               set_up),
        cmocka_unit_test_setup(test_reading_ends_when_nobody_would_read_more_mistakes, set_up),
        cmocka_unit_test_setup(test_a_list_has_a_limit, set_up),
        cmocka_unit_test_setup(test_a_value_has_a_type_and_a_range, set_up),
        cmocka_unit_test_setup(test_a_leading_tilde_is_the_home_in_the_name_of_a_file, set_up),
        cmocka_unit_test_setup(test_what_is_no_file_is_told_and_nobody_waits_for_it, set_up),
        cmocka_unit_test_setup(test_whatever_the_bytes_every_mistake_has_a_line_of_the_file,
                               set_up),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
