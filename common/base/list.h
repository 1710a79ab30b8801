/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_LIST_H
#define TREADLE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/assert.h"

/* The owner of an embedded member. The pointer must not be NULL. */
#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))
#define container_of_const(pointer, type, member)                                                  \
    ((const type *)(const void *)((const char *)(pointer)-offsetof(type, member)))

/* A doubly linked ring: the head of a list, or a link embedded in an owner. What points at itself
 * is an empty list, or a link that is in no list; so one link is in one place at a time. */
struct list {
    struct list *next;
    struct list *prev;
};

/* Makes an empty head, or a link that is in no list. */
static inline void list_init(struct list *list)
{
    list->next = list;
    list->prev = list;
}

/* Of a head: holds nothing. Of a link: is in no list. */
static inline bool list_is_empty(const struct list *list)
{
    return list->next == list;
}

/* The link must be in no list. */
static inline void list_push_back(struct list *head, struct list *link)
{
    TREADLE_ASSERT(list_is_empty(link));
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/* The link must be in no list. */
static inline void list_push_front(struct list *head, struct list *link)
{
    list_push_back(head->next, link);
}

/* Takes the link out of its list; a link in no list stays as it is. */
static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/* Moves all of source in front of what target holds, in its order; source is empty afterwards. */
static inline void list_splice_front(struct list *target, struct list *source)
{
    if (list_is_empty(source)) {
        return;
    }
    source->prev->next = target->next;
    target->next->prev = source->prev;
    target->next = source->next;
    source->next->prev = target;
    list_init(source);
}

/* The first link, or NULL of an empty list. */
static inline struct list *list_first(const struct list *head)
{
    return list_is_empty(head) ? NULL : head->next;
}

/* The link after this one, or NULL at the end. */
static inline struct list *list_next(const struct list *head, const struct list *link)
{
    return link->next == head ? NULL : link->next;
}

/* Removes and returns the first link, or NULL of an empty list. */
static inline struct list *list_pop_front(struct list *head)
{
    struct list *link = list_first(head);
    if (link != NULL) {
        list_remove(link);
    }
    return link;
}

#endif
