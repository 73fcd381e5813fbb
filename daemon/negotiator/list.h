/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Circular lists with the links inside the elements.
 *
 * A node that is in no list points at itself, so that removing it twice does no harm and
 * needs no knowledge of the list it was in.
 */
#pragma once

#include <stdbool.h>

struct list {
	struct list *next;
	struct list *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_remove(struct list *node)
{
	node->next->prev = node->prev;
	node->prev->next = node->next;
	list_init(node);
}

static inline void list_append(struct list *head, struct list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* Moves everything in `from` to the empty list `ret`. */
static inline void list_move_all(struct list *from, struct list *ret)
{
	list_init(ret);
	if (list_empty(from))
		return;
	*ret = *from;
	ret->next->prev = ret;
	ret->prev->next = ret;
	list_init(from);
}
