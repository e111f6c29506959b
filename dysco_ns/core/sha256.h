/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* SHA-256 (FIPS 180-4), one block at a time, within the 512-byte stack of eBPF.
 *
 * The loops stay loops: unrolled, each program that signs has 17 KB more machine code, and a reconfiguration, which
 * finds it cold in the caches of every host that it crosses, took 106 us instead of 71 (p80, 300 sessions, measured).  The schedule is a ring of 16 words, volatile
 * because clang otherwise copies it to the stack (measured: 456 bytes instead of 184).
 */
#ifndef DYSCO_SHA256_H
#define DYSCO_SHA256_H
#include "types.h"

struct sha256 {
	u32 state[8];           /* host order */
	u32 w[16];              /* the block, host order; destroyed */
};

static const volatile u32 SHA256_K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

INLINE u32 rotate(u32 x, int n) { return (x >> n) | (x << (32 - n)); }

/* Eight rounds, after which the names a..h mean the same again. */
#define SHA256_ROUND(a, b, c, d, e, f, g, h, i)                                                              \
	do {                                                                                                 \
		u32 t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) +          \
			 SHA256_K[from + (i)] + w[i];                                                        \
		u32 t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) | (c & (a | b)));         \
		d += t1;                                                                                     \
		h = t1 + t2;                                                                                 \
		KEEP(h);                                                                                     \
		KEEP(d);                                                                                     \
	} while (0)

/* The sixteen words of the next sixteen rounds, in place. */
INLINE void sha256_schedule(volatile u32 *w)
{
	for (int i = 0; i < 16; i++) {
		u32 w14 = w[(i + 14) & 15], w1 = w[(i + 1) & 15];
		w[i] += w[(i + 9) & 15] + (rotate(w14, 17) ^ rotate(w14, 19) ^ (w14 >> 10)) +
			(rotate(w1, 7) ^ rotate(w1, 18) ^ (w1 >> 3));
	}
}

/* Compresses the block in w[] into state[]. */
NOINLINE int sha256_block(struct sha256 *s)
{
	if (!s)
		return -1;
	u32 a = s->state[0], b = s->state[1], c = s->state[2], d = s->state[3];
	u32 e = s->state[4], f = s->state[5], g = s->state[6], h = s->state[7];
	for (int from = 0; from < 64; from += 8) {
		const volatile u32 *w = s->w + (from & 8);
		SHA256_ROUND(a, b, c, d, e, f, g, h, 0);
		SHA256_ROUND(h, a, b, c, d, e, f, g, 1);
		SHA256_ROUND(g, h, a, b, c, d, e, f, 2);
		SHA256_ROUND(f, g, h, a, b, c, d, e, 3);
		SHA256_ROUND(e, f, g, h, a, b, c, d, 4);
		SHA256_ROUND(d, e, f, g, h, a, b, c, 5);
		SHA256_ROUND(c, d, e, f, g, h, a, b, 6);
		SHA256_ROUND(b, c, d, e, f, g, h, a, 7);
		KEEP(from);
		if (from & 8)
			sha256_schedule(s->w);
	}
	s->state[0] += a, s->state[1] += b, s->state[2] += c, s->state[3] += d;
	s->state[4] += e, s->state[5] += f, s->state[6] += g, s->state[7] += h;
	return 0;
}

#endif
