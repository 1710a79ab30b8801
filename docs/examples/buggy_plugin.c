/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A plugin with a bug, to see what a crash leaves behind:
 *
 *     cc -std=c17 -g -shared -fPIC -o buggy_plugin.so buggy_plugin.c
 *     treadle work --plugin ./buggy_plugin.so
 *     treadle run stock.price pears                         prints 3
 *     treadle run --attempts 1 stock.price plums            dies of SIGSEGV; the worker goes on
 *     treadle task show ID                                  the signal, and the functions it was in
 *
 * The functions are not static because only such have names in a backtrace.
 */
#include <stdio.h>
#include <string.h>

#include <treadle/worker.h>

struct stock_item {
    const char *name;
    int price;
};

const struct stock_item *stock_find(const char *name, size_t name_size);
int stock_price_of(const char *name, size_t name_size);
enum treadle_end stock_price(treadle_context *context, const struct treadle_attempt *attempt);

/* NULL: there is no such item. */
const struct stock_item *stock_find(const char *name, size_t name_size)
{
    static const struct stock_item items[] = {{"apples", 2}, {"pears", 3}};
    for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++) {
        if (strlen(items[i].name) == name_size && memcmp(items[i].name, name, name_size) == 0) {
            return &items[i];
        }
    }
    return NULL;
}

/* Here is the bug: an item that is not there has no price. */
int stock_price_of(const char *name, size_t name_size)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): what this file is for */
    return stock_find(name, name_size)->price;
}

/* stock.price: the price of the item that the body names. */
enum treadle_end stock_price(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[16];
    const int size =
        snprintf(text, sizeof(text), "%d", stock_price_of(attempt->body, attempt->body_size));
    return treadle_context_result(context, text, (size_t)size);
}

static const struct treadle_handler handlers[] = {
    {
        .size = sizeof(struct treadle_handler),
        .name = "stock.price",
        .run = stock_price,
    },
};

static const struct treadle_plugin plugin = {
    .size = sizeof(struct treadle_plugin),
    .abi_version = TREADLE_PLUGIN_ABI,
    .handlers = handlers,
    .handler_count = sizeof(handlers) / sizeof(handlers[0]),
};

const struct treadle_plugin *treadle_plugin(void)
{
    return &plugin;
}
