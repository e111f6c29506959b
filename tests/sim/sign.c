/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures: keys for the agents, a judgement on every message that they send, forgeries.  SHA-256 (FIPS 180-4) and
 * HMAC (RFC 2104) written again, so that two mistakes would have to agree. */
#include <stddef.h>
#include <string.h>

#include "../../dysco_ns/host/port.h" /* for the keys; core/port.h is another */
#include "sim.h"

enum { KEY_BYTES = 20, HEADER = 16, SIGNATURE = 32, KEY = 2, CONTROL = 6 };

static const uint8_t SECRET[64] = "twenty bytes of key!"; /* zeros up to a block, as HMAC wants */

static uint32_t right(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* The first 32 bits of the fractional parts of a root of the first primes: square roots to begin with, cube roots on the way. */
static uint32_t fraction(int prime, int cube)
{
	unsigned __int128 low = 0, high = (unsigned __int128)1 << 40; /* of root << 32 */

	while (high - low > 1) {
		unsigned __int128 at = (low + high) / 2, power = at * at;
		int above = cube ? power * at > (unsigned __int128)prime << 96 : power > (unsigned __int128)prime << 64;
		if (above)
			high = at;
		else
			low = at;
	}
	return (uint32_t)low;
}

static uint32_t constant[64], initial[8];

static void constants(void)
{
	int n = 0;

	for (int p = 2; n < 64; p++) {
		int prime = 1;
		for (int d = 2; d * d <= p; d++)
			prime &= p % d != 0;
		if (!prime)
			continue;
		if (n < 8)
			initial[n] = fraction(p, 0);
		constant[n++] = fraction(p, 1);
	}
}

static void compress(uint32_t *state, const uint8_t *block)
{
	uint32_t w[64], v[8];

	for (int i = 0; i < 16; i++)
		w[i] = get32(block + 4 * i);
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] + (right(w[i - 15], 7) ^ right(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (right(w[i - 2], 17) ^ right(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(v, state, sizeof(v));
	for (int i = 0; i < 64; i++) {
		uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]), majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
		uint32_t one = v[7] + (right(v[4], 6) ^ right(v[4], 11) ^ right(v[4], 25)) + choice + constant[i] + w[i];
		uint32_t two = (right(v[0], 2) ^ right(v[0], 13) ^ right(v[0], 22)) + majority;
		memmove(v + 1, v, 7 * sizeof(*v));
		v[4] += one;
		v[0] = one + two;
	}
	for (int i = 0; i < 8; i++)
		state[i] += v[i];
}

/* The state after the block of the key under a pad. */
static void pad_block(uint32_t *state, uint8_t pad)
{
	uint8_t block[64];

	if (!initial[0])
		constants();
	for (int i = 0; i < 64; i++)
		block[i] = SECRET[i] ^ pad;
	memcpy(state, initial, sizeof(initial));
	compress(state, block);
}

/* Goes on from a state that has taken one block. */
static void digest(uint32_t *state, const uint8_t *bytes, uint32_t n)
{
	uint8_t blocks[320] = {};
	uint32_t all = (n + 9 + 63) / 64 * 64;

	memcpy(blocks, bytes, n);
	blocks[n] = 0x80;
	put32(blocks + all - 4, (64 + n) * 8);
	for (uint32_t at = 0; at < all; at += 64)
		compress(state, blocks + at);
}

static int signature_right(const uint8_t *message, uint32_t n)
{
	uint32_t inner[8], outer[8];
	uint8_t bytes[SIGNATURE];

	pad_block(inner, 0x36);
	pad_block(outer, 0x5c);
	digest(inner, message, n);
	for (int i = 0; i < 8; i++)
		put32(bytes + 4 * i, inner[i]);
	digest(outer, bytes, SIGNATURE);
	for (int i = 0; i < 8; i++)
		put32(bytes + 4 * i, outer[i]);
	return !memcmp(bytes, message + n, SIGNATURE);
}

void sign_start(struct sim *s, int host)
{
	struct hmac_key *key = &s->agent[host]->key[KEY];

	pad_block(key->inner, 0x36);
	pad_block(key->outer, 0x5c);
	key->valid = 1;
	s->agent[host]->config.domain[0] = (struct domain){ .sign = 1, .key = KEY };
}

static int is_message(const struct packet *p, const struct view *v)
{
	return v->payload >= HEADER && (v->control || v->flags & F_SYN) && get16(p->data + v->data_at) == 0x4459;
}

/* To a firewall a control session is a connection in which each side sends `n` bytes with its SYN and then `n` at a time. */
static int numbers_right(const struct view *v, const uint8_t *message)
{
	uint32_t near = get32(message + 16), far = ~near, n = v->payload, type = message[3];

	switch (type) {
	case 2: case 9: return v->flags == F_SYN && v->seq == near;
	case 3: case 4: return v->flags == (F_SYN | F_ACK) && v->seq == far && v->ack == near + 1 + n;
	case 5: case 7: return v->flags == (F_ACK | F_PSH) && v->seq == near + 1 + n && v->ack == far + 1 + n;
	default: return v->flags == (F_ACK | F_PSH) && v->seq == far + 1 + n && v->ack == near + 1 + 2 * n;
	}
}

/* A message as an agent has sent it: its length, and its signature if there are keys. */
void sign_judge(struct sim *s, const struct packet *p, const struct view *v)
{
	const uint8_t *message = p->data + v->data_at;

	if (!is_message(p, v)) {
		if (v->control || (v->flags & F_SYN && v->payload))
			sim_wrong(s, "a message that is none was sent");
		return;
	}
	if (v->control && !numbers_right(v, message))
		sim_wrong(s, "a control segment with a message of type %u had numbers of another", message[3]);
	uint32_t n = get16(message + 4), is_signed = message[6] & 1;
	if (v->payload != n + (is_signed ? SIGNATURE : 0) || is_signed != s->scenario.sign)
		sim_wrong(s, "a message of %u bytes was sent as %u, signed %u", n, v->payload, is_signed);
	else if (is_signed && !signature_right(message, n))
		sim_wrong(s, "a wrong signature was sent on a message of %u bytes, type %u", n, message[3]);
}

/* Changes a byte of a signed message, or cuts its signature off: nobody may act upon it. */
int sign_forge(struct sim *s, struct packet *p)
{
	struct view v;

	if (view_read(p, &v) || !is_message(p, &v) || v.payload <= SIGNATURE)
		return 0;
	uint8_t *message = p->data + v.data_at;
	if (sim_random(s, 4) == 0) {
		message[6] = 0;
		message[HEADER + sim_random(s, v.payload - SIGNATURE - HEADER)] ^= 4;
		p->length -= SIGNATURE;
	} else {
		message[7 + sim_random(s, v.payload - 7)] ^= (uint8_t)(1 << sim_random(s, 8));
	}
	sim_checksum(p);
	return 1;
}
