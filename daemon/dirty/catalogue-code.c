/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The catalogue as bytes, and back.  What was read may be rotten, or made up by somebody: it is
 * a catalogue only when every number and name in it makes sense.
 */
#include "dirty/catalogue.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "base/emit.h"
#include "base/text.h"
#include "dirty/seal.h"

#define BLOCK 4096u
#define FLAG_CHECKPOINT 1u
#define FLAG_FOLLOWS 2u
#define FLAG_WATCHES 4u
#define FLAG_PENDING 8u
#define TRACE_KNOWN 1u
#define TRACE_MACHINE_STOPPED 2u
#define ALL_FLAGS (FLAG_CHECKPOINT | FLAG_FOLLOWS | FLAG_WATCHES | FLAG_PENDING)

static const char magic[8] = { 'N', 'B', 'D', 'b', 'm', 'C', 'A', 'T' };

/* A bitmap is up to three texts with their lengths, and 2 + 16 + 48 bytes. */
static_assert(SEAL_SIZE + 512 + AREAS_MAX * 10 +
              BITMAPS_MAX * (BITMAP_NAME_MAX + BITMAP_REASON_MAX + GROUP_ID_SIZE + 72) <= CATALOGUE_SIZE,
              "the largest catalogue fits");

static void emit_text(struct emit *out, const char *text)
{
	struct span s = span_of(text);

	emit_u16(out, (uint16_t) s.len);
	emit_span(out, s);
}

static void emit_trace(struct emit *out, const struct device_trace *trace)
{
	emit_u8(out, (uint8_t) ((trace->known ? TRACE_KNOWN : 0) |
	                        (trace->machine_stopped ? TRACE_MACHINE_STOPPED : 0)));
	emit_span(out, (struct span) { .at = trace->boot_id, .len = sizeof trace->boot_id });
	emit_u64(out, trace->disk_sequence);
	emit_u64(out, trace->sectors_written);
	emit_u64(out, trace->sectors_discarded);
	emit_u64(out, (uint64_t) trace->changed_sec);
	emit_u32(out, trace->changed_nsec);
	emit_u64(out, trace->inode);
}

static void emit_deltas(struct emit *out, const struct delta_entry deltas[AREAS_MAX])
{
	uint16_t n = 0;

	for (unsigned area = 0; area < AREAS_MAX; area++)
		n = (uint16_t) (n + (deltas[area].id != 0));
	emit_u16(out, n);
	for (unsigned area = 0; area < AREAS_MAX; area++) {
		if (deltas[area].id == 0)
			continue;
		emit_u16(out, (uint16_t) area);
		emit_u64(out, deltas[area].id);
	}
}

static void emit_areas(struct emit *out, const struct area_set *set)
{
	for (unsigned i = 0; i < AREAS_MAX / 64; i++)
		emit_u64(out, set->bits[i]);
}

static void emit_bitmap(struct emit *out, const struct bitmap_entry *bitmap)
{
	emit_text(out, bitmap->name);
	emit_u8(out, (uint8_t) bitmap->state);
	emit_u8(out, (uint8_t) ((bitmap->checkpoint ? FLAG_CHECKPOINT : 0) |
	                        (bitmap->follows ? FLAG_FOLLOWS : 0) |
	                        (bitmap->pending ? FLAG_PENDING : 0) |
	                        (bitmap->watches ? FLAG_WATCHES : 0)));
	emit_u64(out, bitmap->created);
	emit_u64(out, bitmap->state_since);
	emit_text(out, bitmap->reason);
	emit_areas(out, &bitmap->shows);
	emit_areas(out, &bitmap->missed);
	if (bitmap->pending)
		emit_text(out, bitmap->group);
}

size_t catalogue_encode(const struct catalogue *catalogue, const uint8_t uuid[16],
                        uint8_t out[CATALOGUE_SIZE])
{
	struct emit body = emit_into(out + SEAL_SIZE, CATALOGUE_SIZE - SEAL_SIZE);
	size_t used, padded;

	memset(out, 0, SEAL_SIZE);
	emit_u8(&body, catalogue->attached);
	emit_u64(&body, catalogue->attached_at);
	emit_u64(&body, catalogue->device_size);
	emit_u64(&body, catalogue->next_id);
	emit_u32(&body, catalogue->recording);
	emit_u64(&body, catalogue->unclean_ends);
	emit_u64(&body, catalogue->over_reported);
	emit_trace(&body, &catalogue->trace);
	emit_text(&body, catalogue->identity);
	emit_deltas(&body, catalogue->deltas);
	emit_u16(&body, (uint16_t) catalogue->n_bitmaps);
	for (unsigned i = 0; i < catalogue->n_bitmaps; i++)
		emit_bitmap(&body, &catalogue->bitmaps[i]);
	assert(emit_fits(&body));

	used = SEAL_SIZE + body.len;
	padded = (used + BLOCK - 1) / BLOCK * BLOCK;
	memset(out + used, 0, padded - used);
	seal_unit(out, used, magic, uuid, catalogue->sequence);
	return padded;
}

/* Anything but 0 and 1 makes the whole unreadable. */
static bool take_flag(struct bytes *in)
{
	uint8_t v = take_u8(in);

	if (v > 1)
		in->overrun = true;
	return v == 1;
}

/* False when it does not fit into `ret`, or a terminal could not show it as it is. */
static bool take_text(struct bytes *in, char *ret, size_t size)
{
	char shown[BITMAP_NAME_MAX + 4];
	struct span s = take_span(in, take_u16(in));

	assert(size <= BITMAP_NAME_MAX + 1);
	if (in->overrun || s.len >= size)
		return false;
	if (s.len)
		memcpy(ret, s.at, s.len);
	ret[s.len] = '\0';
	printable(s, BITMAP_NAME_MAX, shown, sizeof shown);
	return strlen(ret) == s.len && strcmp(ret, shown) == 0;
}

static void take_trace(struct bytes *in, struct device_trace *ret)
{
	uint8_t flags = take_u8(in);
	struct span boot_id = take_span(in, sizeof ret->boot_id);

	if (flags & ~(TRACE_KNOWN | TRACE_MACHINE_STOPPED))
		in->overrun = true;
	ret->known = flags & TRACE_KNOWN;
	ret->machine_stopped = flags & TRACE_MACHINE_STOPPED;
	if (boot_id.len)
		memcpy(ret->boot_id, boot_id.at, sizeof ret->boot_id);
	ret->disk_sequence = take_u64(in);
	ret->sectors_written = take_u64(in);
	ret->sectors_discarded = take_u64(in);
	ret->changed_sec = (int64_t) take_u64(in);
	ret->changed_nsec = take_u32(in);
	ret->inode = take_u64(in);
}

static const char *take_deltas(struct bytes *in, struct catalogue *ret)
{
	struct bytes entries = take_bytes(in, take_u16(in) * (size_t) 10);
	uint32_t least = 0;

	while (bytes_left(&entries)) {
		uint16_t area = take_u16(&entries);
		uint64_t id = take_u64(&entries);

		if (area < least || area >= AREAS_MAX)
			return "its areas are out of order or range";
		if (id == 0 || id >= ret->next_id)
			return "a delta's id is out of range";
		for (unsigned other = 0; other < area; other++)
			if (ret->deltas[other].id == id)
				return "two deltas have the same id";
		ret->deltas[area].id = id;
		least = area + 1u;
	}
	return NULL;
}

/* False when one of them holds no delta. */
static bool take_areas(struct bytes *in, const struct delta_entry deltas[AREAS_MAX],
                       struct area_set *ret)
{
	for (unsigned i = 0; i < AREAS_MAX / 64; i++)
		ret->bits[i] = take_u64(in);
	for (uint32_t area = 0; area < AREAS_MAX; area++)
		if (area_in(ret, area) && deltas[area].id == 0)
			return false;
	return true;
}

static const char *take_bitmap(struct bytes *in, const struct delta_entry deltas[AREAS_MAX],
                               struct bitmap_entry *ret)
{
	uint8_t state, flags;

	if (!take_text(in, ret->name, sizeof ret->name) || !ret->name[0])
		return "a bitmap's name is none";
	state = take_u8(in);
	flags = take_u8(in);
	if (state > BITMAP_LOST || (flags & ~ALL_FLAGS))
		return "a bitmap's state is none";
	ret->state = state;
	ret->checkpoint = flags & FLAG_CHECKPOINT;
	ret->follows = flags & FLAG_FOLLOWS;
	ret->pending = flags & FLAG_PENDING;
	ret->watches = flags & FLAG_WATCHES;
	ret->created = take_u64(in);
	ret->state_since = take_u64(in);
	if (!take_text(in, ret->reason, sizeof ret->reason))
		return "the reason of a bitmap's state is no text";
	if (!take_areas(in, deltas, &ret->shows) || !take_areas(in, deltas, &ret->missed))
		return "a bitmap refers to an area without a delta";
	if (ret->pending && (!take_text(in, ret->group, sizeof ret->group) ||
	                     !group_id_check(ret->group)))
		return "a bitmap's group is none";
	return NULL;
}

static const char *take_bitmaps(struct bytes *in, struct catalogue *ret)
{
	uint16_t n = take_u16(in);

	if (n > BITMAPS_MAX)
		return "it has more bitmaps than there may be";
	while (ret->n_bitmaps < n) {
		struct bitmap_entry *bitmap = &ret->bitmaps[ret->n_bitmaps];
		const char *wrong = take_bitmap(in, ret->deltas, bitmap);

		if (wrong)
			return wrong;
		if (catalogue_find(ret, bitmap->name))
			return "two bitmaps have the same name";
		ret->n_bitmaps++;
	}
	return bytes_all_taken(in) ? NULL : "its length is not that of its entries";
}

const char *catalogue_decode(const uint8_t in[CATALOGUE_SIZE], const uint8_t uuid[16],
                             struct catalogue *ret)
{
	struct bytes body;
	size_t used;
	const char *wrong;

	memset(ret, 0, sizeof *ret);
	wrong = seal_check(in, CATALOGUE_SIZE, magic, uuid, &ret->sequence, &used);
	if (wrong)
		return wrong;
	body = bytes_over(in + SEAL_SIZE, used - SEAL_SIZE);
	ret->attached = take_flag(&body);
	ret->attached_at = take_u64(&body);
	ret->device_size = take_u64(&body);
	ret->next_id = take_u64(&body);
	ret->recording = take_u32(&body);
	ret->unclean_ends = take_u64(&body);
	ret->over_reported = take_u64(&body);
	take_trace(&body, &ret->trace);
	if (!take_text(&body, ret->identity, sizeof ret->identity))
		return "the device's identity is no text";
	if (ret->next_id == 0 || ret->next_id >= SEQUENCE_END)
		return "the next delta's id is out of range";
	wrong = take_deltas(&body, ret);
	if (wrong)
		return wrong;
	if (ret->recording != NO_AREA &&
	    (ret->recording >= AREAS_MAX || ret->deltas[ret->recording].id == 0))
		return "the area that is recorded to holds no delta";
	return take_bitmaps(&body, ret);
}
