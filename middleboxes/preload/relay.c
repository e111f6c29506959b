/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "relay.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct end *ends[MAX_FD];
int relay_plain_only;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t serial;
int ends_highest;

void relay_lock(void) { pthread_mutex_lock(&lock); }

void relay_unlock(void) { pthread_mutex_unlock(&lock); }

void relay_reset(void)
{
	pthread_mutex_init(&lock, 0);
	memset(ends, 0, sizeof(ends));
	ends_highest = 0;
}

/* ---- sockets ---- */

void end_open(int fd, enum kind kind, int port)
{
	struct end *e = fd < MAX_FD ? calloc(1, sizeof(*e)) : 0;

	if (!e)
		return;
	e->fd = fd;
	e->serial = ++serial;
	e->kind = kind;
	e->port = port;
	messages_start(&e->in, kind == CONNECTED, relay_plain_only);
	messages_start(&e->out, kind == ACCEPTED, relay_plain_only);
	ends[fd] = e;
	ends_highest = fd > ends_highest ? fd : ends_highest;
}

static void part(struct end *e)
{
	e->proven = 0;
	if (e->partner) {
		e->partner->partner = 0;
		e->partner->proven = 0;
		e->partner->differs = 1;
	}
	e->partner = 0;
}

void end_close(int fd)
{
	struct end *e = ends[fd];

	ends[fd] = 0;
	part(e);
	free(e->held.bytes);
	free(e);
}

static void lose(struct end *e)
{
	free(e->held.bytes);
	e->held = (struct held){ .at = e->read, .lost = 1 };
}

void end_spoil(int fd, const char *why)
{
	struct end *e = ends[fd];

	e->spoiled = e->spoiled ? e->spoiled : why;
	lose(e);
}

/* ---- what is inside the process ---- */

static size_t in_memory(const struct held *h) { return h->to - h->from; }

static void hold(struct end *e, const char *data, size_t n)
{
	struct held *h = &e->held;

	if (h->lost)
		return;
	if (h->in_pipe || (in_memory(h) + n > MOST_HELD && !e->promised)) {
		lose(e);
		return;
	}
	if (h->from == h->to)
		h->from = h->to = 0;
	if (h->to + n > h->room && h->from) {
		memmove(h->bytes, h->bytes + h->from, in_memory(h));
		h->to -= h->from;
		h->from = 0;
	}
	if (h->to + n > h->room) {
		size_t room = 2 * (h->to + n);
		char *bytes = realloc(h->bytes, room);
		if (!bytes) {
			lose(e);
			return;
		}
		h->bytes = bytes;
		h->room = room;
	}
	memcpy(h->bytes + h->to, data, n);
	h->to += n;
}

/* Content begins: what was before it was a header, which is written anew. */
static void hold_afresh(struct end *e)
{
	e->held.from = e->held.to = 0;
	e->held.at = e->in.at;
	e->held.lost = e->held.in_pipe > 0;
}

static void note_place(struct end *e, const char *memory, size_t n)
{
	struct place *last = &e->place[(e->places - 1) % PLACES];

	if (e->places && last->memory + last->length == memory && last->at + last->length == e->read) {
		last->length += n;
		last->serial = ++serial;
	} else {
		e->place[e->places++ % PLACES] = (struct place){ memory, n, e->read, ++serial };
	}
}

void saw_read(struct end *e, const char *data, size_t n)
{
	note_place(e, data, n);
	e->read += n;
	while (n && !e->spoiled) {
		int fresh;
		size_t taken = messages_take(&e->in, &e->out, data, n, &fresh);
		if (fresh)
			hold_afresh(e);
		else if (e->in.framing == FRAMING_CHUNKED)
			lose(e);
		else
			hold(e, data, taken);
		data += taken;
		n -= taken;
	}
}

void saw_read_into_pipe(struct end *e, size_t n)
{
	e->read += n;
	if (messages_skip(&e->in, n))
		end_spoil(e->fd, "HTTP headers go through a pipe");
	e->held.in_pipe += n;
}

/* ---- what leaves ---- */

/* The socket from which the bytes at `data` came: those that it still holds were put just there, and nothing has been read
 * into that memory since. */
static struct end *origin(const char *data, size_t n)
{
	struct end *found = 0;
	uint64_t newest = 0, at = 0;

	for (int fd = 0; fd <= ends_highest; fd++)
		for (unsigned i = 0; ends[fd] && i < PLACES; i++) {
			const struct place *p = &ends[fd]->place[i];
			if (p->serial <= newest || data < p->memory || data >= p->memory + p->length)
				continue;
			found = ends[fd];
			newest = p->serial;
			at = p->at + (uint64_t)(data - p->memory);
		}
	return found && in_memory(&found->held) >= n && found->held.at == at ? found : 0;
}

static int next_is(const struct held *h, size_t offset, const char *data, size_t n)
{
	return !h->lost && in_memory(h) >= offset + n && !memcmp(h->bytes + h->from + offset, data, n);
}

/* A process that copies what it relays leaves no trace of where it came from.  The only socket whose next bytes are these
 * may be it; that has to be proven later. */
static struct end *only_match(const struct end *e, const char *data, size_t n)
{
	struct end *found = 0;

	for (int fd = 0; n >= LEAST_MATCH && fd <= ends_highest; fd++) {
		if (!ends[fd] || ends[fd]->kind == e->kind || !next_is(&ends[fd]->held, 0, data, n))
			continue;
		if (found)
			return 0;
		found = ends[fd];
	}
	return found;
}

/* Whether the partner has read into this memory: then it is worth asking whether it was the last to do so. */
static int may_prove(const struct end *source, const char *data)
{
	for (unsigned i = 0; i < PLACES; i++)
		if (data >= source->place[i].memory && data < source->place[i].memory + source->place[i].length)
			return 1;
	return 0;
}

static void let_go(struct held *h, size_t n)
{
	h->from += n;
	h->at += n;
}

static void join(struct end *e, struct end *source)
{
	part(e);
	part(source);
	e->partner = source;
	source->partner = e;
}

/* Content that is written: from the partner, or from a socket that becomes it. */
static void content_leaves(struct end *e, const char *data, size_t n)
{
	struct end *source = e->partner;

	if (e->differs)
		return;
	if (!source || !next_is(&source->held, 0, data, n)) {
		struct end *other = origin(data, n), *shown = other;
		other = other ? other : only_match(e, data, n);
		int fits = other && other != source && other->kind != e->kind && next_is(&other->held, 0, data, n);
		int mixed = source && (messages_endless(&e->out) || (other && messages_endless(&other->in)));
		if (!fits || mixed) {
			e->differs = 1;
			return;
		}
		join(e, other);
		e->differs = 0;
		e->proven = other->proven = shown == other;
		source = other;
	} else if (!e->proven && may_prove(source, data) && origin(data, n) == source) {
		e->proven = source->proven = 1;
	}
	let_go(&source->held, n);
}

void saw_write(struct end *e, const char *data, size_t n)
{
	e->written += n;
	while (n && !e->spoiled) {
		int fresh;
		size_t taken = messages_take(&e->out, &e->in, data, n, &fresh);
		if (fresh)
			e->differs = 0;
		else if (e->out.framing != FRAMING_HEADER)
			content_leaves(e, data, taken);
		data += taken;
		n -= taken;
	}
}

void saw_write_from_pipe(struct end *e, struct end *source, size_t n)
{
	e->written += n;
	if (messages_skip(&e->out, n))
		end_spoil(e->fd, "HTTP headers come from a pipe");
	if (source && !e->partner && !source->partner && source->kind != e->kind)
		join(e, source);
	if (!source || e->partner != source || in_memory(&source->held) || source->held.in_pipe < n) {
		e->differs = 1;
		return;
	}
	e->proven = source->proven = 1;
	source->held.in_pipe -= n;
	source->held.at += n;
}

void saw_write_of_file(struct end *e, size_t n)
{
	e->written += n;
	messages_skip(&e->out, n);
	e->differs = 1;
}

int relays(const struct end *e, size_t offset, const char *data, size_t n)
{
	return e->partner && !e->differs && next_is(&e->partner->held, offset, data, n);
}

/* ---- after the promise ---- */

size_t relay_swallow(struct end *e, const char *data, size_t n)
{
	struct end *source = e->partner;
	size_t known = source ? source->held.ahead : 0, taken = 0;
	int fresh;

	n = n < known ? n : known;
	while (taken < n)
		taken += messages_take(&e->out, &e->in, data + taken, n - taken, &fresh);
	if (n) {
		source->held.ahead -= n;
		let_go(&source->held, n);
	}
	return n;
}

void relay_push(struct end *e, long (*send)(int fd, const void *data, size_t n))
{
	struct end *source = e->partner;
	struct held *h = source ? &source->held : 0;

	if (!e->promised || !h || e->differs || e->busy || h->lost || in_memory(h) == h->ahead)
		return;
	uint64_t now = source->read + h->at + h->ahead;
	if (e->stuck_at != now) {
		e->stuck_at = now;
		return;
	}
	long n = send(e->fd, h->bytes + h->from + h->ahead, in_memory(h) - h->ahead);
	if (n > 0) {
		h->ahead += (size_t)n;
		e->written += (uint64_t)n;
	}
}
