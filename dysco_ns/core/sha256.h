/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* SHA-256 (FIPS 180-4), one block at a time, within the 512-byte stack of eBPF.
 *
 * The message schedule is a ring of 16 words.  Its accesses are volatile because clang otherwise copies the ring to
 * the stack (measured: 456 bytes instead of 184).
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

#define SHA256_W(i) (*(volatile u32 *)&s->w[(i) & 15])
#define SHA256_FIRST(i) SHA256_W(i)
#define SHA256_NEXT(i)                                                                                       \
	({                                                                                                   \
		u32 w14 = SHA256_W((i) + 14), w1 = SHA256_W((i) + 1);                                        \
		u32 next = SHA256_W(i) + SHA256_W((i) + 9) + (rotate(w14, 17) ^ rotate(w14, 19) ^ (w14 >> 10)) + \
			   (rotate(w1, 7) ^ rotate(w1, 18) ^ (w1 >> 3));                                     \
		SHA256_W(i) = next;                                                                          \
		next;                                                                                        \
	})
#define SHA256_ROUND(a, b, c, d, e, f, g, h, k, w)                                                           \
	do {                                                                                                 \
		u32 t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + (k) + (w); \
		u32 t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));     \
		d += t1;                                                                                     \
		h = t1 + t2;                                                                                 \
	} while (0)
#define SHA256_EIGHT(k, n, W)                                                                                \
	SHA256_ROUND(a, b, c, d, e, f, g, h, (k)[n], W(n));                                                  \
	SHA256_ROUND(h, a, b, c, d, e, f, g, (k)[n + 1], W(n + 1));                                          \
	SHA256_ROUND(g, h, a, b, c, d, e, f, (k)[n + 2], W(n + 2));                                          \
	SHA256_ROUND(f, g, h, a, b, c, d, e, (k)[n + 3], W(n + 3));                                          \
	SHA256_ROUND(e, f, g, h, a, b, c, d, (k)[n + 4], W(n + 4));                                          \
	SHA256_ROUND(d, e, f, g, h, a, b, c, (k)[n + 5], W(n + 5));                                          \
	SHA256_ROUND(c, d, e, f, g, h, a, b, (k)[n + 6], W(n + 6));                                          \
	SHA256_ROUND(b, c, d, e, f, g, h, a, (k)[n + 7], W(n + 7))

/* Compresses the block in w[] into state[]. */
NOINLINE int sha256_block(struct sha256 *s)
{
	if (!s)
		return -1;
	u32 a = s->state[0], b = s->state[1], c = s->state[2], d = s->state[3];
	u32 e = s->state[4], f = s->state[5], g = s->state[6], h = s->state[7];
	SHA256_EIGHT(SHA256_K, 0, SHA256_FIRST);
	SHA256_EIGHT(SHA256_K, 8, SHA256_FIRST);
	SHA256_EIGHT(SHA256_K + 16, 0, SHA256_NEXT);
	SHA256_EIGHT(SHA256_K + 16, 8, SHA256_NEXT);
	SHA256_EIGHT(SHA256_K + 32, 0, SHA256_NEXT);
	SHA256_EIGHT(SHA256_K + 32, 8, SHA256_NEXT);
	SHA256_EIGHT(SHA256_K + 48, 0, SHA256_NEXT);
	SHA256_EIGHT(SHA256_K + 48, 8, SHA256_NEXT);
	s->state[0] += a, s->state[1] += b, s->state[2] += c, s->state[3] += d;
	s->state[4] += e, s->state[5] += f, s->state[6] += g, s->state[7] += h;
	return 0;
}

#endif
