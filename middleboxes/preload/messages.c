/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "messages.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const methods[] = { "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE ", 0 };
static const char *const versions[] = { "HTTP/1.", 0 };

void messages_start(struct messages *m, int response, int plain)
{
	memset(m, 0, sizeof(*m));
	m->response = response;
	m->framing = plain ? FRAMING_PLAIN : FRAMING_UNKNOWN;
}

int messages_endless(const struct messages *m)
{
	return m->framing == FRAMING_PLAIN || m->framing == FRAMING_TUNNEL || (m->framing == FRAMING_UNKNOWN && !m->at);
}

/* Whether the line so far begins like a message: 1 yes, 0 no, -1 it may yet. */
static int begins(const struct messages *m)
{
	for (const char *const *word = m->response ? versions : methods; *word; word++) {
		size_t length = strlen(*word);
		if (!memcmp(m->line, *word, m->line_length < length ? m->line_length : length))
			return m->line_length >= length ? 1 : -1;
	}
	return 0;
}

static void header_start(struct messages *m)
{
	m->framing = FRAMING_HEADER;
	m->header = m->lines = 0;
	m->status = 0;
	m->has_length = m->chunked = m->upgrade = m->connect = m->head = m->last = 0;
	m->left = m->length = 0;
}

static void first_line(struct messages *m)
{
	const char *version = m->response ? m->line : strstr(m->line, " HTTP/1.");

	if (m->response)
		m->status = (int)strtol(m->line + strcspn(m->line, " "), 0, 10);
	m->head = !m->response && !strncmp(m->line, "HEAD ", 5);
	m->connect = !m->response && !strncmp(m->line, "CONNECT ", 8);
	m->last = version && strstr(version, "HTTP/1.0") == version + !m->response;
}

static void field_line(struct messages *m)
{
	const char *value = strchr(m->line, ':');

	if (!value)
		return;
	size_t name = (size_t)(value++ - m->line);
	if (name == 14 && !strncasecmp(m->line, "content-length", name)) {
		m->has_length = 1;
		m->left = m->length = strtoull(value, 0, 10);
	} else if (name == 17 && !strncasecmp(m->line, "transfer-encoding", name)) {
		m->chunked = 1;
	} else if (name == 7 && !strncasecmp(m->line, "upgrade", name)) {
		m->upgrade = 1;
	} else if (name == 10 && !strncasecmp(m->line, "connection", name)) {
		m->last = strcasestr(value, "close") ? 1 : strcasestr(value, "keep-alive") ? 0 : m->last;
	}
}

/* What follows a header (RFC 9112, 6.3). */
static enum framing after_header(const struct messages *m, const struct messages *request)
{
	if (!m->response) {
		if (m->connect || m->upgrade)
			return FRAMING_TUNNEL;
		return m->chunked ? FRAMING_CHUNKED : m->left ? FRAMING_LENGTH : FRAMING_REST;
	}
	if (m->status == 101 || (request && request->connect && m->status / 100 == 2))
		return FRAMING_TUNNEL;
	if (m->status / 100 == 1 || m->status == 204 || m->status == 304 || (request && request->head))
		return FRAMING_REST;
	if (m->chunked)
		return FRAMING_CHUNKED;
	return !m->has_length ? FRAMING_UNTIL_END : m->left ? FRAMING_LENGTH : FRAMING_REST;
}

/* A byte of a header.  1: it was the last one. */
static int header_byte(struct messages *m, const struct messages *request, char byte)
{
	m->header++;
	if (byte != '\n') {
		if (m->line_length < LINE_BYTES)
			m->line[m->line_length++] = byte;
		return 0;
	}
	if (m->line_length && m->line[m->line_length - 1] == '\r')
		m->line_length--;
	m->line[m->line_length] = 0;
	int empty = !m->line_length;
	if (!m->lines++)
		first_line(m);
	else if (!empty)
		field_line(m);
	m->line_length = 0;
	if (!empty)
		return 0;
	m->framing = after_header(m, request);
	return 1;
}

/* While it is not known what the stream carries, its first bytes are kept as the first line. */
static void guess(struct messages *m, const char *data, size_t n)
{
	size_t room = 8 - m->line_length, taken = n < room ? n : room;

	memcpy(m->line + m->line_length, data, taken);
	m->line_length += (uint32_t)taken;
	int answer = begins(m);
	m->line_length -= (uint32_t)taken;
	if (answer > 0)
		header_start(m), m->header = m->line_length;
	else if (!answer)
		m->framing = FRAMING_PLAIN;
	else
		m->line_length += (uint32_t)taken;
}

size_t messages_take(struct messages *m, const struct messages *request, const char *data, size_t n, int *fresh)
{
	size_t taken = 0;

	*fresh = 0;
	if (m->framing == FRAMING_UNKNOWN) {
		guess(m, data, n);
		if (m->framing == FRAMING_UNKNOWN) {
			m->at += n;
			return n;
		}
	}
	if (m->framing == FRAMING_REST) {
		header_start(m);
		m->line_length = 0;
	}
	if (m->framing == FRAMING_HEADER) {
		while (taken < n && m->framing == FRAMING_HEADER) {
			*fresh = header_byte(m, request, data[taken++]);
			if (m->header > HEADER_BYTES)
				m->framing = FRAMING_CHUNKED; /* not understood any more, and never a relay */
		}
	} else {
		taken = m->framing == FRAMING_LENGTH && n > m->left ? m->left : n;
	}
	m->at += taken;
	if (*fresh)
		m->content_at = m->at;
	else if (m->framing == FRAMING_LENGTH && !(m->left -= taken))
		m->framing = FRAMING_REST;
	return taken;
}

int messages_skip(struct messages *m, size_t n)
{
	if (m->framing == FRAMING_UNKNOWN && !m->at)
		m->framing = FRAMING_PLAIN;
	int content = messages_endless(m) || m->framing == FRAMING_UNTIL_END || (m->framing == FRAMING_LENGTH && n <= m->left);

	m->at += n;
	if (!content) {
		m->framing = FRAMING_CHUNKED;
		return -1;
	}
	if (m->framing == FRAMING_LENGTH && !(m->left -= n))
		m->framing = FRAMING_REST;
	return 0;
}
