/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/shell/principals.h"

#define KEY_A "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
#define KEY_B "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define KEY_C "01112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char path[64];
static struct conf_mistakes mistakes;
static struct principals *principals;

static int make_file(void **unused)
{
    (void)unused;
    (void)snprintf(path, sizeof path, "/tmp/treadle-principals-XXXXXX");
    const int fd = mkstemp(path);
    return fd == -1 ? -1 : close(fd);
}

static int remove_file(void **unused)
{
    (void)unused;
    return unlink(path);
}

static int tear_down(void **unused)
{
    (void)unused;
    principals_destroy(&principals);
    return 0;
}

static void when_it_is_read(const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    principals_destroy(&principals);
    mistakes = (struct conf_mistakes){.count = 0};
    principals = principals_read(path, &mistakes);
    for (uint32_t i = 0; i < mistakes.count && i < CONF_MISTAKES_MAX; i++) {
        print_message("%u: %s\n", mistakes.at[i].line, mistakes.at[i].text);
    }
    assert_true((principals == NULL) == (mistakes.count > 0));
}

static const struct principal *find(const char *hex)
{
    uint8_t key[KEY_SIZE];
    assert_true(principals_read_hex(key, hex));
    return principals_find(principals, key);
}

static bool covers(const struct principal *principal, const char *name)
{
    return globs_cover(&principal->services, bytes_from_text(name));
}

static void test_keys_lead_to_principals_with_roles_and_services(void **unused)
{
    (void)unused;
    when_it_is_read("# who\n"
                    "principal \"host1\" {\n"
                    "    keys = {" KEY_B ", " KEY_A "}\n"
                    "    roles = {submit, work}\n"
                    "    services = {\"wc.*\", \"mail.send\"}\n"
                    "}\n"
                    "principal ops {\n    keys = {" KEY_C "}\n    roles = {admin}\n"
                    "    services = {\"*\"}\n}\n");
    assert_non_null(principals);
    assert_int_equal(principals_count(principals), 2);
    assert_int_equal(principals_key_count(principals), 3);
    assert_string_equal(find(KEY_A)->name, "host1");
    assert_ptr_equal(find(KEY_A), find(KEY_B));
    assert_int_equal(find(KEY_A)->rights, RIGHT_SUBMIT | RIGHT_WORK);
    assert_true(covers(find(KEY_A), "wc.count"));
    assert_true(covers(find(KEY_A), "mail.send"));
    assert_false(covers(find(KEY_A), "mail.read"));
    assert_string_equal(find(KEY_C)->name, "ops");
    assert_int_equal(find(KEY_C)->rights, RIGHT_ADMIN);
    assert_null(find("02112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"));
}

static void test_principal_may_have_no_keys_no_roles_and_no_services(void **unused)
{
    (void)unused;
    when_it_is_read("principal a {\n keys = {}\n roles = {}\n services = {}\n}\n");
    assert_int_equal(principals_key_count(principals), 0);
    when_it_is_read(""); /* nobody gets in */
    assert_int_equal(principals_count(principals), 0);
    assert_null(find(KEY_A));
}

static const struct {
    uint32_t line;
    const char *text;
    const char *what;
    const char *expected;
} mistake_cases[] = {
    {1, "keys = {}\n", "keys: outside of a section", "within principal"},
    {1, "user a {\n}\n", "user: no such section", "expected one of treadle-principals(5)"},
    {1, "principal {\n keys={}\n roles={}\n services={}\n}\n", "principal \"\"", "with a name"},
    {1, "principal \"a b\" {\n keys={}\n roles={}\n services={}\n}\n", "principal \"a b\"",
     "with a name"},
    {1, "principal local {\n keys={}\n roles={}\n services={}\n}\n", "principal local",
     "another name"},
    {1, "principal anybody {\n keys={}\n roles={}\n services={}\n}\n", "principal anybody",
     "another name"},
    {6, "principal a {\n keys={}\n roles={}\n services={}\n}\nprincipal a {\n}\n", "principal a",
     "each name once"},
    {1, "principal a {\n keys={}\n roles={}\n}\n", "principal a has no services",
     "services = {...}"},
    {3, "principal a {\n keys={}\n keys={}\n roles={}\n services={}\n}\n",
     "keys stands in line 2 already", "once"},
    {2, "principal a {\n role={}\n keys={}\n roles={}\n services={}\n}\n", "role: no such key",
     "did you mean roles?"},
    {2, "principal a {\n keys={1234567}\n roles={}\n services={}\n}\n",
     "keys: \"1234\"... is no key", "64 hexadecimal digits"},
    {2,
     "principal a {\n keys={g0112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF}\n"
     " roles={}\n services={}\n}\n",
     "is no key", "64 hexadecimal digits"},
    {2, "principal a {\n keys={" KEY_A "0}\n roles={}\n services={}\n}\n", "is no key", "64"},
    {7,
     "principal a {\n keys={" KEY_A "}\n roles={}\n services={}\n}\nprincipal b {\n keys={" KEY_A
     "}\n roles={}\n services={}\n}\n",
     "keys: 00112233... stands in line 2 already, of principal a", "each key once"},
    {3, "principal a {\n keys={}\n roles={root}\n services={}\n}\n", "roles: root",
     "submit, work, admin"},
    {3, "principal a {\n keys={}\n roles={Submit}\n services={}\n}\n", "roles: Submit",
     "submit, work, admin"},
    {3, "principal a {\n keys={}\n roles={work, work}\n services={}\n}\n",
     "work stands there twice", "once"},
    {4, "principal a {\n keys={}\n roles={}\n services={wc}\n}\n", "services: wc", "SERVICE.TASK"},
    {4, "principal a {\n keys={}\n roles={}\n services={\"w c.*\"}\n}\n", "services: \"w c.*\"",
     "SERVICE.TASK"},
    {4, "principal a {\n keys={}\n roles={}\n services={\"wc.[ab]\"}\n}\n",
     "services: ", "SERVICE.TASK"},
    {4, "principal a {\n keys={}\n roles={}\n services={\"\"}\n}\n", "services: ", "SERVICE.TASK"},
    {1, "principal a {\n keys={}\n roles={}\n services={}\n", "a section is not closed", "}"},
    /* what stands there, but not rightly, is not told as missing as well */
    {3, "principal a {\n keys={}\n roles=submit\n services={}\n}\n", "roles: not a list",
     "submit, work, admin"},
    {3, "principal a {\n keys={}\n roles {submit}\n services={}\n}\n", "roles: no '='",
     "roles = VALUE"},
    {4, "principal a {\n keys={}\n roles={}\n services=\n}\n", "services: no value", "\"*\""},
};

static void test_each_mistake_is_told_with_its_line(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof mistake_cases / sizeof mistake_cases[0]; i++) {
        when_it_is_read(mistake_cases[i].text);
        assert_int_equal(mistakes.count, 1);
        assert_int_equal(mistakes.at[0].line, mistake_cases[i].line);
        assert_non_null(strstr(mistakes.at[0].text, mistake_cases[i].what));
        assert_non_null(strstr(mistakes.at[0].text, mistake_cases[i].expected));
    }
}

static void test_what_may_be_a_secret_key_is_not_told_in_full(void **unused)
{
    (void)unused;
    when_it_is_read("principal a {\n keys={\"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID\"}\n"
                    " roles={}\n services={}\n}\n");
    assert_int_equal(mistakes.count, 1);
    assert_null(strstr(mistakes.at[0].text, "w-vo<fV"));
}

static void test_missing_file_is_a_mistake(void **unused)
{
    (void)unused;
    mistakes = (struct conf_mistakes){.count = 0};
    assert_null(principals_read("/nowhere/principals", &mistakes));
    assert_int_equal(mistakes.count, 1);
    char text[256];
    conf_print_mistake(text, sizeof text, "principals", &mistakes.at[0]);
    assert_int_equal(strncmp(text, "principals: cannot be read: ", 28), 0);
    assert_non_null(strstr(text, "; expected a file of principal \"NAME\" { ... } sections"));
}

static void then_it_is_refused(const char *what)
{
    mistakes = (struct conf_mistakes){.count = 0};
    assert_null(principals_read(path, &mistakes));
    assert_int_equal(mistakes.count, 1);
    assert_int_equal(mistakes.at[0].line, CONF_LINE_WHOLE);
    assert_non_null(strstr(mistakes.at[0].text, what));
}

/* They could let themselves in. */
static void test_file_that_others_may_write_is_refused(void **unused)
{
    (void)unused;
    static const mode_t modes[] = {0620, 0602, 0666, 0664};
    when_it_is_read("principal a {\n keys={" KEY_A "}\n roles={}\n services={}\n}\n");
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        then_it_is_refused("may be written by others; expected");
        assert_non_null(strstr(mistakes.at[0].text, path)); /* chmod go-w of what */
    }
    assert_int_equal(chmod(path, 0644), 0); /* what it says is no secret */
    mistakes = (struct conf_mistakes){.count = 0};
    principals_destroy(&principals);
    principals = principals_read(path, &mistakes);
    assert_non_null(principals);
}

static void test_file_of_another_user_is_refused(void **unused)
{
    (void)unused;
    when_it_is_read("");
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(chown(path, 65534, 65534), 0);
    then_it_is_refused("belongs to another user; expected");
    assert_int_equal(chown(path, 0, 0), 0);
}

static void test_key_of_the_broker_is_no_principals(void **unused)
{
    (void)unused;
    uint8_t key[KEY_SIZE];
    when_it_is_read("principal a {\n keys={" KEY_A ",\n" KEY_B "}\n roles={}\n services={}\n}\n");
    assert_true(principals_read_hex(key, KEY_C));
    principals_refuse_key(principals, key, &mistakes);
    assert_int_equal(mistakes.count, 0);
    assert_true(principals_read_hex(key, KEY_B));
    principals_refuse_key(principals, key, &mistakes);
    assert_int_equal(mistakes.count, 1);
    assert_int_equal(mistakes.at[0].line, 3);
    assert_non_null(strstr(mistakes.at[0].text, "ff112233... is the broker's own key"));
    assert_non_null(strstr(mistakes.at[0].text, "; expected a key that was made for a"));
}

static struct principal given_a_principal(uint32_t rights, const struct bytes *globs,
                                          uint32_t count)
{
    return (struct principal){"a", rights, {globs, count}};
}

static void test_narrower_is_less_roles_less_services_or_another_name(void **unused)
{
    (void)unused;
    const struct bytes wide[] = {bytes_from_text("wc.*"), bytes_from_text("mail.send")};
    const struct bytes narrow[] = {bytes_from_text("wc.count"), bytes_from_text("mail.*")};
    const struct principal before = given_a_principal(RIGHT_SUBMIT | RIGHT_WORK, wide, 2);
    struct principal now = given_a_principal(RIGHT_ALL, wide, 2);
    assert_false(principal_is_narrower(&now, &before));
    assert_true(principal_is_narrower(&before, &now)); /* no admin any more */
    now = given_a_principal(RIGHT_ALL, wide, 1);
    assert_true(principal_is_narrower(&now, &before));
    now = given_a_principal(RIGHT_ALL, narrow, 2);
    assert_true(principal_is_narrower(&now, &before));
    now = given_a_principal(RIGHT_ALL, principal_local.services.at, 1);
    assert_false(principal_is_narrower(&now, &before));
    now.name[0] = 'b';
    assert_true(principal_is_narrower(&now, &before));
}

static void test_too_many_values_of_a_list_are_one_mistake(void **unused)
{
    (void)unused;
    const size_t room = (size_t)(CONF_VALUES_MAX + 2) * 70;
    char *text = malloc(room);
    assert_non_null(text);
    size_t size = (size_t)snprintf(text, room, "principal a {\nroles={}\nservices={}\nkeys={\n");
    for (unsigned i = 0; i <= CONF_VALUES_MAX; i++) {
        size += (size_t)snprintf(text + size, room - size, "%064x,\n", i);
    }
    (void)snprintf(text + size, room - size, "}\n}\n");
    when_it_is_read(text);
    assert_int_equal(mistakes.count, 1);
    assert_int_equal(mistakes.at[0].line, 5 + CONF_VALUES_MAX);
    assert_non_null(strstr(mistakes.at[0].text, "a list too long"));
    free(text);
}

static void test_table_is_narrower_if_one_key_of_many_lost_something(void **unused)
{
    (void)unused;
    static const char two[] = "principal a {\n keys={" KEY_A "," KEY_B "}\n roles={work}\n"
                              " services={\"wc.*\"}\n}\n"
                              "principal b {\n keys={" KEY_C "}\n roles={work}\n"
                              " services={\"wc.*\"}\n}\n";
    static const struct {
        const char *text;
        bool is_narrower;
    } cases[] = {
        {two, false},
        {"principal b {\n keys={" KEY_C "}\n roles={work, admin}\n services={\"*\"}\n}\n"
         "principal a {\n keys={" KEY_A "," KEY_B "}\n roles={work}\n services={\"*\"}\n}\n",
         false},
        {"principal a {\n keys={" KEY_A "}\n roles={work}\n services={\"wc.*\"}\n}\n"
         "principal b {\n keys={" KEY_C "}\n roles={work}\n services={\"wc.*\"}\n}\n",
         true}, /* nobody's now */
        {"principal a {\n keys={" KEY_A "}\n roles={work}\n services={\"wc.*\"}\n}\n"
         "principal b {\n keys={" KEY_B "," KEY_C "}\n roles={work}\n services={\"wc.*\"}\n}\n",
         true}, /* somebody else's now */
        {"principal a {\n keys={" KEY_A "," KEY_B "}\n roles={work}\n services={\"wc.*\"}\n}\n"
         "principal b {\n keys={" KEY_C "}\n roles={work}\n services={\"wc.a\"}\n}\n",
         true},
    };
    when_it_is_read(two);
    struct principals *before = principals;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        principals = NULL;
        print_message("case %zu\n", i);
        when_it_is_read(cases[i].text);
        assert_int_equal(principals_are_narrower(principals, before), cases[i].is_narrower);
        principals_destroy(&principals);
    }
    principals_destroy(&before);
}

static void test_glob_covers_what_all_its_texts_are_covered_of(void **unused)
{
    (void)unused;
    static const struct {
        const char *glob;
        const char *pattern;
        bool is_covered;
    } cases[] = {
        {"wc.count", "wc.count", true},   {"wc.count", "wc.counts", false},
        {"wc.count", "wc.*", false},      {"wc.*", "wc.*", true},
        {"wc.*", "wc.count", true},       {"wc.*", "wcx.count", false},
        {"wc.*", "wc.eu.count", true},    {"*", "wc.*", true},
        {"*.count", "wc.count", true},    {"*.count", "wc.*", false},
        {"*.count", "wc.count.x", false}, {"w*.c*t", "wc.count", true},
        {"w*.c*t", "wc.counter", false},  {"*c*c*", "wc.count", true},
        {"*a*b*c", "x.aabbabc", true},    {"*a*b*c", "x.aabbabcd", false},
        {"wc.**", "wc.a", true},          {"wc.*a*", "wc.*", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct bytes glob = bytes_from_text(cases[i].glob);
        const struct globs globs = {&glob, 1};
        print_message("%s over %s\n", cases[i].glob, cases[i].pattern);
        assert_int_equal(globs_cover(&globs, bytes_from_text(cases[i].pattern)),
                         cases[i].is_covered);
    }
    assert_false(globs_cover(NULL, bytes_from_text("wc.count")));
    assert_false(globs_cover(&(struct globs){NULL, 0}, bytes_from_text("wc.count")));
}

static void test_glob_touches_a_service_of_which_it_covers_some_task(void **unused)
{
    (void)unused;
    static const struct {
        const char *glob;
        const char *service;
        bool is_touched;
    } cases[] = {
        {"wc.count", "wc", true},    {"wc.*", "wc", true},  {"*", "wc", true},
        {"w*", "wc", true},          {"*.x", "wc", true},   {"wc.count", "w", false},
        {"wc.count", "mail", false}, {"wc.x*", "wc", true}, {"wc.a.b", "wc.a", true},
        {"mail*", "wc", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct bytes glob = bytes_from_text(cases[i].glob);
        const struct globs globs = {&glob, 1};
        print_message("%s of %s\n", cases[i].glob, cases[i].service);
        assert_int_equal(globs_touch_service(&globs, bytes_from_text(cases[i].service)),
                         cases[i].is_touched);
    }
}

static void test_many_principals_and_keys_are_found_and_too_many_are_a_mistake(void **unused)
{
    (void)unused;
    const size_t room = (size_t)(PRINCIPAL_COUNT_MAX + 1) * 160;
    char *text = malloc(room);
    assert_non_null(text);
    size_t size = 0;
    for (uint32_t i = 0; i <= PRINCIPAL_COUNT_MAX; i++) {
        size += (size_t)snprintf(text + size, room - size,
                                 "principal p%u {\nkeys={%064x}\nroles={submit}\n"
                                 "services={\"*\"}\n}\n",
                                 i, i * 7919U);
        if (i == PRINCIPAL_COUNT_MAX - 1) {
            when_it_is_read(text);
            assert_int_equal(principals_key_count(principals), PRINCIPAL_COUNT_MAX);
        }
    }
    char hex[KEY_HEX_SIZE];
    for (uint32_t i = 0; i < PRINCIPAL_COUNT_MAX; i++) {
        char name[16];
        (void)snprintf(hex, sizeof hex, "%064x", i * 7919U);
        (void)snprintf(name, sizeof name, "p%u", i);
        assert_string_equal(find(hex)->name, name);
    }
    when_it_is_read(text);
    assert_int_equal(mistakes.count, 1);
    assert_non_null(strstr(mistakes.at[0].text, "one principal too many"));
    free(text);
}

int main(void)
{
#define STORY(test) cmocka_unit_test_teardown(test, tear_down)
    const struct CMUnitTest tests[] = {
        STORY(test_keys_lead_to_principals_with_roles_and_services),
        STORY(test_principal_may_have_no_keys_no_roles_and_no_services),
        STORY(test_each_mistake_is_told_with_its_line),
        STORY(test_what_may_be_a_secret_key_is_not_told_in_full),
        STORY(test_file_that_others_may_write_is_refused),
        STORY(test_file_of_another_user_is_refused),
        STORY(test_key_of_the_broker_is_no_principals),
        STORY(test_missing_file_is_a_mistake),
        STORY(test_narrower_is_less_roles_less_services_or_another_name),
        STORY(test_too_many_values_of_a_list_are_one_mistake),
        STORY(test_table_is_narrower_if_one_key_of_many_lost_something),
        STORY(test_glob_covers_what_all_its_texts_are_covered_of),
        STORY(test_glob_touches_a_service_of_which_it_covers_some_task),
        STORY(test_many_principals_and_keys_are_found_and_too_many_are_a_mistake),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
