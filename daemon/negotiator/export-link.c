/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The link to one export: connect on demand, wait with a deadline, send, end. */
#include "negotiator/export-link.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/text.h"

#define RETRY_BUSY_USEC (USEC_PER_SEC / 20)           /* a full queue of connections */
#define FAILED_USEC USEC_PER_SEC             /* a failed start is told again, not retried */
#define RECORDS_PER_WAKEUP 64u
#define TITLE_SHOWN 80u                         /* bytes of a name in a sentence */

void export_wait_init(struct export_wait *wait,
                      void (*done)(struct export_wait *wait, const struct wait_result *result))
{
	*wait = (struct export_wait) { .done = done };
	list_init(&wait->node);
}

void export_wait_cancel(struct export_wait *wait)
{
	list_remove(&wait->node);
	wait->request = 0;
	wait->for_room = false;
}

static struct export_wait *oldest_wait(const struct export_link *link)
{
	return list_empty(&link->waits) ? NULL :
		container_of(link->waits.next, struct export_wait, node);
}

/* Arms the timer for what comes first: the oldest wait's deadline, or another attempt. */
static void arm_timer(struct export_link *link)
{
	const struct export_wait *wait = oldest_wait(link);
	uint64_t at = wait ? wait->deadline : UINT64_MAX;

	if (link->state == LINK_BUSY && link->retry_at < at)
		at = link->retry_at;
	if (at == UINT64_MAX) {
		(void) sd_event_source_set_enabled(link->timer, SD_EVENT_OFF);
		return;
	}
	(void) sd_event_source_set_time(link->timer, at);
	(void) sd_event_source_set_enabled(link->timer, SD_EVENT_ONESHOT);
}

static enum link_answer queue_wait(struct export_link *link, struct export_wait *wait)
{
	wait->deadline = monotonic_us() + link->start_timeout;
	list_append(&link->waits, &wait->node);
	arm_timer(link);
	return LINK_WAIT;
}

static enum link_answer wait_for_room(struct export_link *link, struct export_wait *wait)
{
	wait->for_room = true;
	(void) sd_event_source_set_io_events(link->io, EPOLLIN | EPOLLOUT);
	return queue_wait(link, wait);
}

static bool waits_for_offer(const struct export_wait *wait)
{
	return !wait->request && !wait->for_room;
}

static void end_waits(struct list *waits, const struct wait_result *result)
{
	while (!list_empty(waits)) {
		struct export_wait *wait = container_of(waits->next, struct export_wait, node);

		export_wait_cancel(wait);
		wait->done(wait, result);
	}
}

/* Takes the waits of one kind from the link; the others keep their order. */
static void take_waits(struct export_link *link, bool (*concerns)(const struct export_wait *),
                       struct list *ret)
{
	struct list all;

	list_init(ret);
	list_move_all(&link->waits, &all);
	while (!list_empty(&all)) {
		struct export_wait *wait = container_of(all.next, struct export_wait, node);

		list_remove(&wait->node);
		list_append(concerns(wait) ? ret : &link->waits, &wait->node);
	}
}

static void ask_again(struct export_link *link, bool (*concerns)(const struct export_wait *))
{
	struct list waits;

	take_waits(link, concerns, &waits);
	end_waits(&waits, &(struct wait_result) { .outcome = WAIT_ASK_AGAIN });
	arm_timer(link);
}

void export_link_drop(struct export_link *link, const struct refusal *refusal,
                      bool is_failed_start)
{
	struct list refused, retrying;

	link->io = sd_event_source_disable_unref(link->io);
	close_fd(&link->fd);
	offer_unref(link->offer);
	offer_unref(link->incoming);
	link->offer = link->incoming = NULL;
	link->state = LINK_IDLE;
	places_forget(&link->places);
	if (is_failed_start) {
		link->failure = *refusal;
		link->failed_until = monotonic_us() + FAILED_USEC;
	}

	/* Who came after the end and before we noticed it gets a fresh export. */
	take_waits(link, waits_for_offer, &retrying);
	list_move_all(&link->waits, &refused);
	end_waits(&refused, &(struct wait_result) { .outcome = WAIT_REFUSED,
	                                            .refusal = refusal });
	end_waits(&retrying, &(struct wait_result) {
		.outcome = is_failed_start ? WAIT_REFUSED : WAIT_ASK_AGAIN, .refusal = refusal });
	arm_timer(link);
}

static bool waits_for_room(const struct export_wait *wait)
{
	return wait->for_room;
}

void export_link_wake(struct export_link *link)
{
	ask_again(link, waits_for_offer);
}

/* The end of file: an idle export's, or one that died. */
static void on_end(struct export_link *link)
{
	struct refusal refusal;

	if (link->state == LINK_READY || link->state == LINK_ENDED) {
		log_about(LOG_DEBUG, &(struct subject) { .export_label = link->label },
		          "the export has closed its channel");
		refuse(&refusal, REASON_EXPORT_GONE, "export '%s' has gone away", link->title);
		export_link_drop(link, &refusal, false);
		return;
	}
	refuse(&refusal, REASON_START_FAILED, "export '%s' could not be started", link->title);
	log_event(EVENT_EXPORT_UNREACHABLE, &(struct subject) { .export_label = link->label },
	          "the export ended before it was ready");
	export_link_drop(link, &refusal, true);
}

/* A record or a descriptor that may not come: nothing of this connection is trusted. */
static void on_fault(struct export_link *link, const char *fault)
{
	const struct subject about = { .export_label = link->label,
	                               .reason = reason_word(REASON_PROTOCOL),
	                               .event = EVENT_CHANNEL_VIOLATION };
	struct refusal refusal;

	log_about(LOG_ERR, &about, "the export broke the channel's protocol (%s); closing it",
	          fault);
	refuse(&refusal, REASON_EXPORT_GONE, "export '%s' has gone away", link->title);
	export_link_drop(link, &refusal, true);
}

/* True while there may be more. */
static bool receive_one(struct export_link *link)
{
	uint8_t record[CHANNEL_RECORD_MAX];
	unsigned n_fds = 0;
	AUTO_FD fd = -1;
	const char *fault;
	ssize_t len;

	len = receive_record(link->fd, record, sizeof record, &fd, &n_fds);
	if (len == -EAGAIN)
		return false;
	if (len == 0 || len == -ECONNRESET || len == -EPIPE) {
		on_end(link);
		return false;
	}
	if (len < 0)
		fault = len == -EMSGSIZE ? "a record that is too long" : strerror((int) -len);
	else if (n_fds)
		fault = "a descriptor came with a record";
	else
		fault = export_link_record(link, bytes_over(record, (size_t) len));
	if (fault)
		on_fault(link, fault);
	return !fault;
}

static int on_channel(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct export_link *link = userdata;
	uint64_t generation = link->generation;

	(void) source;
	(void) fd;
	/* Who waits may be the last to refer to an export that has left the catalogue. */
	export_link_ref(link);
	if (events & EPOLLOUT) {
		(void) sd_event_source_set_io_events(link->io, EPOLLIN);
		ask_again(link, waits_for_room);
	}
	for (unsigned i = 0; i < RECORDS_PER_WAKEUP; i++)
		if (link->fd < 0 || link->generation != generation || !receive_one(link))
			break;
	export_link_unref(link);
	return 0;
}

/* By a relative path: the working directory is the folder of channels, since whole paths can be
 * longer than an address. */
static int open_channel(const char *label, int *ret_fd)
{
	char path[NAME_MAX + 1];

	if (snprintf(path, sizeof path, "%s.channel", label) >= (int) sizeof path)
		return -ENAMETOOLONG;
	return connect_records(path, ret_fd);
}

/* `error`: of the attempt, an errno.  Nobody listens: that is the state of a unit. */
static void word_failure(const struct export_link *link, int error, struct refusal *ret)
{
	bool silent = error == ENOENT || error == ECONNREFUSED;

	refuse(ret, REASON_START_FAILED, "export '%s' cannot be started: %s%s%s", link->title, silent ?
	       "its socket does not listen, since the device is absent or the export was stopped "
	       "(systemctl status nbd-export@" : strerror(error), silent ? link->label : "",
	       silent ? ".socket)" : "");
}

/* LINK_WAIT when the offer is on its way. */
static enum link_answer connect_link(struct export_link *link, struct refusal *ret_refusal)
{
	int r = open_channel(link->label, &link->fd);

	if (r == -EAGAIN) {
		link->state = LINK_BUSY;
		link->retry_at = monotonic_us() + RETRY_BUSY_USEC;
		return LINK_WAIT;
	}
	if (r >= 0)
		r = sd_event_add_io(link->event, &link->io, link->fd, EPOLLIN, on_channel, link);
	if (r < 0) {
		close_fd(&link->fd);
		link->state = LINK_IDLE;
		word_failure(link, -r, ret_refusal);
		link->failure = *ret_refusal;
		link->failed_until = monotonic_us() + FAILED_USEC;
		return LINK_REFUSED;
	}
	link->state = LINK_STARTING;
	link->generation++;
	return LINK_WAIT;
}

static void refuse_late(struct export_link *link)
{
	struct refusal refusal;
	const struct wait_result result = { .outcome = WAIT_REFUSED, .refusal = &refusal };
	struct export_wait *wait;

	refuse(&refusal, REASON_START_SLOW, "export '%s' did not answer within %u s", link->title,
	       (unsigned) (link->start_timeout / USEC_PER_SEC));
	while ((wait = oldest_wait(link)) && wait->deadline <= monotonic_us()) {
		export_wait_cancel(wait);
		wait->done(wait, &result);
	}
}

/* A start that nobody waits for any more: whoever comes next asks anew. */
static void give_up_start(struct export_link *link)
{
	struct refusal nobody_hears = { .reason = REASON_START_SLOW };

	if (link->state == LINK_BUSY || link->state == LINK_STARTING)
		export_link_drop(link, &nobody_hears, false);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct export_link *link = userdata;
	struct refusal refusal;

	(void) source;
	(void) usec;
	export_link_ref(link);
	refuse_late(link);
	if (!oldest_wait(link))
		give_up_start(link);
	if (link->state == LINK_BUSY && connect_link(link, &refusal) == LINK_REFUSED)
		export_link_drop(link, &refusal, true);
	arm_timer(link);
	export_link_unref(link);
	return 0;
}

enum link_answer export_link_offer(struct export_link *link, struct export_wait *wait,
                                   struct offer **ret_offer, struct refusal *ret_refusal)
{
	if (link->state == LINK_READY) {
		*ret_offer = offer_ref(link->offer);
		return LINK_DONE;
	}
	if (link->state == LINK_IDLE) {
		if (monotonic_us() < link->failed_until) {
			*ret_refusal = link->failure;
			return LINK_REFUSED;
		}
		if (connect_link(link, ret_refusal) == LINK_REFUSED)
			return LINK_REFUSED;
	}
	return queue_wait(link, wait);
}

/* LINK_WAIT stands for "no room now".  A channel that has ended is noticed by the event loop;
 * here it only means that the export is gone. */
static enum link_answer send_to(struct export_link *link, const struct channel_record *record,
                                int fd, struct refusal *ret_refusal)
{
	uint8_t bytes[CHANNEL_RECORD_MAX];
	struct emit out = emit_into(bytes, sizeof bytes);
	int r = -ENOTCONN;

	emit_channel_record(&out, record);
	if (link->state == LINK_READY)
		r = send_record(link->fd, out.start, out.len, fd);
	if (r == -EAGAIN)
		return LINK_WAIT;
	if (r == 0)
		return LINK_DONE;
	if (link->state == LINK_READY && (r == -EPIPE || r == -ECONNRESET))
		link->state = LINK_ENDED;
	refuse(ret_refusal, REASON_EXPORT_GONE, "export '%s' has gone away", link->title);
	return LINK_REFUSED;
}

/* Not zero, and not one that somebody still waits with. */
static uint32_t next_request(struct export_link *link)
{
	if (++link->last_request == 0)
		++link->last_request;
	return link->last_request;
}

enum link_answer export_link_reserve(struct export_link *link, struct export_wait *wait,
                                     struct channel_reserve *reserve,
                                     struct refusal *ret_refusal)
{
	struct channel_record record = { .type = CHANNEL_RESERVE };
	enum link_answer answer;

	reserve->request = next_request(link);
	record.reserve = *reserve;
	answer = send_to(link, &record, -1, ret_refusal);
	if (answer == LINK_WAIT)
		return wait_for_room(link, wait);
	if (answer == LINK_REFUSED)
		return LINK_REFUSED;
	wait->request = reserve->request;
	return queue_wait(link, wait);
}

enum link_answer export_link_handoff(struct export_link *link, struct export_wait *wait,
                                     const struct reservation *reservation, int fd,
                                     struct refusal *ret_refusal)
{
	const struct channel_record record = { .type = CHANNEL_HANDOFF,
	                                       .token = { .token = reservation->token } };
	enum link_answer answer;

	if (reservation->generation != link->generation) {
		refuse(ret_refusal, REASON_EXPORT_GONE, "export '%s' has gone away", link->title);
		return LINK_REFUSED;
	}
	answer = send_to(link, &record, fd, ret_refusal);
	return answer == LINK_WAIT ? wait_for_room(link, wait) : answer;
}

void export_link_abandon(struct export_link *link, const struct reservation *reservation)
{
	const struct channel_record record = { .type = CHANNEL_ABANDON,
	                                       .token = { .token = reservation->token } };
	struct refusal ignored;

	if (reservation->generation == link->generation)
		(void) send_to(link, &record, -1, &ignored);
}

void export_link_tell_refusal(struct export_link *link, enum reason reason, const char *peer,
                              const char *sentence)
{
	const struct channel_record record = {
		.type = CHANNEL_REFUSAL,
		.refusal = { .reason = reason, .peer = span_of(peer),
		             .sentence = span_of(sentence) },
	};
	struct refusal ignored;

	if (link && link->state == LINK_READY)
		(void) send_to(link, &record, -1, &ignored);
}

int export_link_rename(struct export_link *link, const char *name)
{
	char title[TITLE_SHOWN + 4], *copy;

	printable(span_of(name), TITLE_SHOWN, title, sizeof title);
	copy = strdup(title);
	if (!copy)
		return -ENOMEM;
	free(link->title);
	link->title = copy;
	return 0;
}

static void free_link(struct export_link *link)
{
	while (!list_empty(&link->places.list))
		place_free(container_of(link->places.list.next, struct place, node));
	link->io = sd_event_source_disable_unref(link->io);
	link->timer = sd_event_source_disable_unref(link->timer);
	close_fd(&link->fd);
	offer_unref(link->offer);
	offer_unref(link->incoming);
	sd_event_unref(link->event);
	free(link->label);
	free(link->title);
	free(link);
}

struct export_link *export_link_new(sd_event *event, const char *label, const char *name,
                                    uint64_t start_timeout, struct sources *sources,
                                    struct failure *why)
{
	struct export_link *link = calloc(1, sizeof *link);
	int r = -ENOMEM;

	if (link) {
		*link = (struct export_link) { .n_refs = 1, .fd = -1,
		                               .start_timeout = start_timeout };
		list_init(&link->waits);
		places_init(&link->places, sources);
		link->event = sd_event_ref(event);
		link->label = strdup(label);
		if (link->label && export_link_rename(link, name) == 0)
			r = sd_event_add_time(event, &link->timer, CLOCK_MONOTONIC, UINT64_MAX, 0,
			                      on_timer, link);
	}
	if (r < 0) {
		export_link_unref(link);
		(void) fail(why, -r, "cannot prepare the link to export %s", label);
		return NULL;
	}
	(void) sd_event_source_set_enabled(link->timer, SD_EVENT_OFF);
	return link;
}

struct export_link *export_link_ref(struct export_link *link)
{
	link->n_refs++;
	return link;
}

void export_link_unref(struct export_link *link)
{
	if (link && --link->n_refs == 0)
		free_link(link);
}
