/* SPDX-License-Identifier: MPL-2.0 */
/* One line about a message: NAME number=N upto=N field=value ... [{...} {...}] for lists. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/base/assert.h"
#include "common/wire/message.h"

#define BIN_SHOWN_MAX 16 /* bytes of a bin that are shown */

struct printer {
    char *out;
    size_t size; /* with the NUL */
    size_t used;
};

static bool is_full(const struct printer *printer)
{
    return printer->used + 1 >= printer->size;
}

__attribute__((format(printf, 2, 3))) static void print(struct printer *printer, const char *format,
                                                        ...)
{
    if (is_full(printer)) {
        return;
    }
    const size_t room = printer->size - printer->used;
    va_list arguments;
    va_start(arguments, format);
    const int wanted = vsnprintf(printer->out + printer->used, room, format, arguments);
    va_end(arguments);
    TREADLE_ASSERT(wanted >= 0);
    printer->used += (size_t)wanted < room ? (size_t)wanted : room - 1;
}

static void print_text(struct printer *printer, const char *field, struct bytes text)
{
    print(printer, " %s=\"", field);
    for (size_t i = 0; i < text.size && !is_full(printer); i++) {
        const uint8_t byte = text.data[i];
        if (byte == '"' || byte == '\\') {
            print(printer, "\\%c", byte);
        } else if (byte >= 0x20 && byte < 0x7f) {
            print(printer, "%c", byte);
        } else {
            print(printer, "\\x%02x", byte);
        }
    }
    print(printer, "\"");
}

static void print_bin(struct printer *printer, const char *field, struct bytes bin)
{
    print(printer, " %s=%zuB", field, bin.size);
    if (bin.size > 0) {
        print(printer, ":");
    }
    for (size_t i = 0; i < bin.size && i < BIN_SHOWN_MAX; i++) {
        print(printer, "%02x", bin.data[i]);
    }
    if (bin.size > BIN_SHOWN_MAX) {
        print(printer, "..");
    }
}

static void print_task_id(struct printer *printer, const char *field, struct treadle_task_id id)
{
    print(printer, " %s=", field);
    for (size_t i = 0; i < sizeof id.bytes; i++) {
        print(printer, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id.bytes[i]);
    }
}

/* clang-format off */
/* NOLINTBEGIN */
#define RECORD(name)                                                                                                   \
    static void print_record_##name(struct printer *printer, const struct wire_##name *in)                             \
    {
#define MESSAGE(name, upper, kind, direction)                                                                          \
    static void print_message_##name(struct printer *printer, const struct wire_##name *in)                            \
    {                                                                                                                  \
        (void)printer;                                                                                                 \
        (void)in;
#define END(name)                 }
#define UINT(name, max)           print(printer, " " #name "=%" PRIu64, in->name);
#define TERM(name, term, count)   print(printer, " " #name "=%s", term##_text(in->name));
#define BIN(name, min, max)       print_bin(printer, #name, in->name);
#define STR(name, min, max)       print_text(printer, #name, in->name);
#define NAME(name, min)           print_text(printer, #name, in->name);
#define TASK_ID(name)             print_task_id(printer, #name, in->name);
#define BODY(name)                print(printer, " " #name "=%zuB", in->name.size);
#define NEST(name, record)                                                                                             \
        print(printer, " " #name "={");                                                                                \
        print_record_##record(printer, &in->name);                                                                     \
        print(printer, " }");
#define LIST(name, record, max)                                                                                        \
        print(printer, " " #name "=[");                                                                                \
        struct wire_list name##_rest = in->name;                                                                       \
        struct wire_##record name##_entry;                                                                             \
        while (!is_full(printer) && wire_##record##_next(&name##_rest, &name##_entry)) {                               \
            print(printer, "{");                                                                                       \
            print_record_##record(printer, &name##_entry);                                                             \
            print(printer, " }");                                                                                      \
        }                                                                                                              \
        print(printer, "]");
#include "common/wire/messages.def"

static void print_fields(struct printer *printer, const struct message *message)
{
    switch (message->kind) {
#define MESSAGE(name, upper, kind_number, direction)                                                                   \
    case MESSAGE_##upper:                                                                                              \
        print_message_##name(printer, &message->as.name);                                                              \
        return;
#include "common/wire/messages.def"
    }
}
/* NOLINTEND */
/* clang-format on */

size_t message_print(const struct message *message, char *out, size_t out_size)
{
    TREADLE_ASSERT(out_size >= 1);
    struct printer printer = {out, out_size, 0};
    out[0] = '\0';
    print(&printer, "%s number=%" PRIu64 " upto=%" PRIu64, message_kind_text(message->kind),
          message->number, message->upto);
    print_fields(&printer, message);
    return printer.used;
}
