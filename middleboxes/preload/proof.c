/* SPDX-License-Identifier: Apache-2.0 */
/* When a proxy may leave a session: what it has written is what it has read, apart from HTTP headers, and the kernel has
 * counted the same bytes as we have.
 */
#include "relay.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* The response that the partner sends is the last one of that connection: no request can follow it unseen. */
static int no_more_requests(const struct end *inner, const struct end *outer)
{
	return outer->out.last || outer->in.last || inner->out.framing == FRAMING_UNTIL_END;
}

/* One direction.  Returns a reason, or 0 with the bytes that the process has added. */
static const char *direction(const struct end *from, const struct end *to, int *delta)
{
	const struct messages *in = &from->in, *out = &to->out;
	uint64_t added = out->content_at - in->content_at;

	if ((in->framing == FRAMING_UNKNOWN && in->at) || (out->framing == FRAMING_UNKNOWN && out->at))
		return "too few bytes to tell what they are";
	if (messages_endless(in) != messages_endless(out))
		return "HTTP: one side has more of the message than the other";
	if (in->framing == FRAMING_HEADER || out->framing == FRAMING_HEADER)
		return "HTTP: a header is under way";
	if (in->framing == FRAMING_CHUNKED || out->framing == FRAMING_CHUNKED)
		return "HTTP: a body in chunks may be cut anew";
	if (!messages_endless(in) && (in->framing != out->framing || in->length != out->length))
		return "HTTP: one side has more of the message than the other";
	if (in->framing == FRAMING_REST)
		added = to->written - from->read;
	else if (to->differs)
		return "what leaves is not what came";
	else if (from->held.lost || from->held.at - in->content_at != out->at - out->content_at)
		return "more is under way in the process than can be followed";
	*delta = (int)added;
	return 0;
}

const char *relay_reason(struct end *inner, struct pair *pair)
{
	struct end *outer = inner->partner;
	const char *why;

	*pair = (struct pair){ inner, outer, 0, 0 };
	if (inner->spoiled)
		return inner->spoiled;
	if (!outer)
		return "nothing that it carries was seen to leave by another socket";
	if (outer->spoiled)
		return outer->spoiled;
	if (!inner->proven)
		return "that its bytes leave by another socket is likely, but not proven";
	if (inner->busy || outer->busy)
		return "a write is under way";
	if ((why = direction(inner, outer, &pair->delta_ab)) || (why = direction(outer, inner, &pair->delta_ba)))
		return why;
	if (messages_endless(&inner->in) != messages_endless(&inner->out))
		return "HTTP: one direction is a tunnel, the other is not";
	if (!messages_endless(&inner->in) && inner->out.framing == FRAMING_REST)
		return "HTTP: no response is under way";
	if (!messages_endless(&inner->in) && !no_more_requests(inner, outer))
		return "HTTP: another request may follow on this connection";
	if (inner->ended || outer->ended)
		return "one side has ended";
	return 0;
}

enum { ESTABLISHED = 1 }; /* enum tcp_state of the kernel */

static int is_established(const struct end *e)
{
	struct tcp_info info;
	socklen_t length = sizeof(info);

	return !getsockopt(e->fd, IPPROTO_TCP, TCP_INFO, &info, &length) && info.tcpi_state == ESTABLISHED;
}

/* The kernel's count of what the process has read and written; it moves while we look, so it is read twice.
 * < 0: it moved. */
static int kernel_counts(const struct end *e, uint64_t *read, uint64_t *written)
{
	struct tcp_info before, after;
	socklen_t length = sizeof(before);
	int unread, unacked;

	if (getsockopt(e->fd, IPPROTO_TCP, TCP_INFO, &before, &length))
		return -1;
	if (ioctl(e->fd, SIOCINQ, &unread) || ioctl(e->fd, SIOCOUTQ, &unacked))
		return -1;
	length = sizeof(after);
	if (getsockopt(e->fd, IPPROTO_TCP, TCP_INFO, &after, &length))
		return -1;
	if (before.tcpi_bytes_acked != after.tcpi_bytes_acked || before.tcpi_bytes_received != after.tcpi_bytes_received)
		return -1;
	*read = after.tcpi_bytes_received - (uint64_t)unread;
	*written = after.tcpi_bytes_acked + (uint64_t)unacked - (e->kind == CONNECTED); /* the SYN was acknowledged, too */
	return 0;
}

static int kernel_agrees(const struct end *e)
{
	uint64_t read, written;

	for (int turn = 0; turn < 5; turn++)
		if (!kernel_counts(e, &read, &written) && read == e->read && written == e->written)
			return 1;
	return 0;
}

const char *relay_proof(struct end *inner, struct pair *pair)
{
	const char *why = relay_reason(inner, pair);

	if (!why && !(is_established(inner) && is_established(pair->outer)))
		why = "one side has ended";
	if (!why && !(kernel_agrees(inner) && kernel_agrees(pair->outer)))
		why = "the kernel has counted other bytes: it moves, or data passes unseen";
	return why;
}
