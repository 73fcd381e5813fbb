/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client in the transmission phase.
 *
 * It belongs to one ring from admission to the end.  What it has in flight is bounded by
 * CONN_MAX_SLOTS; when that is reached, when memory is short or when the client does not read
 * its replies, nothing more is read from it.  It ends in order (NBD_CMD_DISC, end of
 * file, drain: what is in flight is answered first) or at once (protocol broken, reset), and is
 * freed when no operation of it is left.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/bytes.h"
#include "export/export.h"
#include "export/loop.h"
#include "wire/reason.h"

#define CONN_MAX_SLOTS 128u
#define CONN_STALL_SECONDS 30           /* without progress, while others wait for memory */
#define CONN_EVICT_MS 500               /* until unread replies give their memory up */
#define CONN_DRAIN_SECONDS 10           /* without progress, while the export stops */
#define CONN_DRAIN_SECONDS_ALL 60       /* until it waits for no client any more */
#define CONN_LINGER_SECONDS 5           /* until a client that has been told all closes: linger.h */
#define CONN_LINGER_BYTES (256u << 20)  /* and so much is thrown away meanwhile */

/* What is being received. */
enum receiving {
	RECEIVING_HEADER,
	RECEIVING_WRITE,                /* payload of conn->writing */
	RECEIVING_FILTER,               /* the payload of a BLOCK_STATUS */
	RECEIVING_DISCARD,              /* payload that nobody wants */
};

struct conn_stats {
	uint64_t n_requests, n_errors;
	uint64_t bytes_read, bytes_written;
};

static inline void stats_add(struct conn_stats *to, const struct conn_stats *from)
{
	to->n_requests += from->n_requests;
	to->n_errors += from->n_errors;
	to->bytes_read += from->bytes_read;
	to->bytes_written += from->bytes_written;
}

struct conn {
	struct export *export;
	struct loop *loop;              /* where it lives, from admission to the end */
	struct conn *next, *prev;       /* loop->conns */
	struct conn *next_unsettled, *next_starved;
	bool is_unsettled, is_starved;

	int fd;                         /* the client's socket; ours, blocking */
	uint64_t id;                    /* the number in both processes' logs */
	enum nbd_mode mode;
	uint64_t size;                  /* as the client was told */
	uint64_t offered;               /* the whole export's then: the same, or more */
	uint16_t flags;
	uint16_t n_contexts;
	uint32_t *contexts;             /* identifiers, each in use by us; ours */
	char peer[64];
	char *identity, *tls;           /* "" where there is none; ours */
	struct letter letter;           /* arriving, and leaving */
	void *admitted;                 /* the main thread's: see admit.c */

	struct holder holder;
	unsigned n_slots;
	struct slot *starved, **starved_end;    /* slots that wait for memory */
	struct slot *bulk, *last_bulk;  /* slots that wait to zero or discard: see bulk.h */
	struct conn *next_bulk;

	/* Receiving: see receive.c */
	struct op recv_op;
	enum receiving receiving;
	struct slot *writing;           /* the WRITE, or BLOCK_STATUS, whose payload comes next */
	struct piece *filling;          /* its piece; NULL while it waits for memory */
	uint64_t payload_left;          /* bytes of payload still to come */
	uint16_t buffer_id;             /* the receive buffer with bytes not yet looked at */
	uint8_t *pending;               /* those bytes; NULL for none */
	uint32_t pending_len;
	uint8_t gathered_len;
	uint8_t *filter;                /* a BLOCK_STATUS payload; ours, while receiving it */
	uint8_t gathered[NBD_EXTENDED_REQUEST_SIZE];    /* a header that came in parts */
	bool receive_blocked;           /* on slots or memory: look again when they are there */
	bool receive_failed;            /* for want of memory: not before the next tick */

	/* Sending: see send.c */
	struct op send_op;
	struct out *out, **out_end;
	bool is_silent;                 /* no reply is due */
	bool evicting, reloading;
	unsigned n_evicted;             /* pieces in the queue whose buffers were given up */
	struct piece *reload;           /* the first of them, while it waits for memory */

	bool ending;                    /* in order: no more requests are read */
	bool lingers;                   /* and all is said, to the end of file */
	struct timespec lingers_since;
	uint64_t discarded;             /* bytes that came since */
	int undelivered;                /* bytes that it had not taken at the last look */
	_Atomic enum reason retired;    /* it shall leave, as in a drain of its own; or REASON_NONE */
	bool is_cut;                    /* since its export has lost a part that it was offered */
	struct timespec retired_at;
	_Atomic bool dead;              /* at once: nothing is sent or started any more */
	enum reason reason;
	struct timespec given;          /* the last time the client gave a byte */
	struct timespec taken;          /* the last time it took one, or had none to take */
	struct conn_stats stats;
};

/* Main thread.  One that has no socket yet. */
struct conn *conn_new(struct loop *loop);

/* What is known of the client by TLS, "" for nothing.  -ENOMEM. */
int conn_set_identity(struct conn *conn, struct span identity, struct span tls);

/* Main thread: also frees its place in the loop, and lets go of its contexts. */
void conn_free(struct conn *conn);

/* Main thread: hands a new connection to the ring. */
void conn_arrive(struct conn *conn);

/* No more requests are read; the connection ends when all is answered.  What the client did stands
 * also where it was to leave anyway: its bytes must not be read on when that is taken back. */
void conn_end(struct conn *conn, enum reason reason);

/* Of one that ends: whether only because of a drain, or since it shall leave. */
bool conn_may_yet_stay(const struct conn *conn);

/* Takes conn_end() back, if that was its reason and it is not too late. */
void conn_stay(struct conn *conn, enum reason reason);

/* No new request of it is served, and it ends when all is answered: as in a drain. */
void conn_retire(struct conn *conn, enum reason reason);

/* Whether that is so, or the same for all clients of its loop.  Any thread. */
static inline bool conn_shall_leave(const struct conn *conn)
{
	return conn->retired != REASON_NONE || conn->loop->draining;
}

/*
 * Whether its requests then get no answer, rather than ESHUTDOWN: with simple replies, as Linux's
 * own driver is a client.  It makes an I/O error of any answer but success, for whoever reads or
 * writes, while a request without one it sends again over its next connection.  Where the device
 * is gone, or a part of it, there is nothing to send it again to: that is told.
 */
static inline bool conn_leaves_unanswered(const struct conn *conn)
{
	if (conn->mode != NBD_MODE_SIMPLE)
		return false;
	return conn->loop->draining ? conn->loop->drain_reason != REASON_DEVICE :
	                              conn->retired != REASON_NONE && !conn->is_cut;
}

/* A sentence for ESHUTDOWN then; NULL while its requests are served. */
const char *conn_leaves_since(const struct conn *conn);

/* Ends it at once.  Its socket is shut down, and what is in flight is not answered. */
void conn_kill(struct conn *conn, enum reason reason);

/* Main thread: ends a connection of that loop at once, if it is still there.  -ENOMEM */
int conn_kick(struct loop *loop, uint64_t id, enum reason reason);

/* Has the connection looked at before the ring sleeps: replies to send, or freed. */
void conn_unsettle(struct conn *conn);

/* For loop.c: looks at all that want to be. */
void conns_settle(struct loop *loop);

/* A slot that cannot go on without memory: `resume` is called when there is some. */
void conn_starve(struct slot *slot, bool (*resume)(struct slot *slot));

/* Whether another slot could be taken now.  If not, it is worth another look when one was given
 * back, and at the next tick. */
bool conn_has_slot(struct conn *conn);

/* A clean slot, counted; conn_has_slot() was asked first. */
struct slot *conn_take_slot(struct conn *conn);
void conn_give_slot(struct slot *slot);

/* The same for an evicted piece, which goes before all slots: conn->reload. */
void conn_await_reload(struct conn *conn, struct piece *piece);

/* Answers the request without data, and notes what went wrong. */
void slot_answer(struct slot *slot, enum nbd_error error, const char *sentence);

/* The first error of a slot stays; `code` is an errno. */
void slot_fail(struct slot *slot, int code, const char *sentence);

/* Where the slot's export and its loop are. */
#define export_of(slot) ((slot)->conn->export)
#define loop_of(slot) ((slot)->conn->loop)
