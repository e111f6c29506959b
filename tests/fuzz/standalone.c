/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a target without libFuzzer, for `make test`: the files that it is given, then so many changes of them, half of
 * these with something from another one.  The first argument is their number; the same ones each time. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 14, MOST_FILES = 4096, MOST_CHANGES = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

struct input {
	size_t length;
	uint8_t at[MOST_BYTES];
};

static struct input *file[MOST_FILES];
static uint64_t state = 88172645463325252u;

static uint32_t below(size_t most)
{
	state ^= state << 13, state ^= state >> 7, state ^= state << 17; /* xorshift64 */
	return (uint32_t)((state >> 32) % (most ? most : 1));
}

static struct input *load(const char *path)
{
	struct input *in = calloc(1, sizeof(*in));
	FILE *from = fopen(path, "rb");

	if (!from || !in) {
		perror(path);
		exit(2);
	}
	in->length = fread(in->at, 1, MOST_BYTES, from);
	fclose(from);
	return in;
}

/* Puts n bytes where `old` were. */
static void replace(struct input *in, size_t at, size_t old, const uint8_t *bytes, size_t n)
{
	if (at + old > in->length || in->length - old + n > MOST_BYTES)
		return;
	memmove(in->at + at + n, in->at + at + old, in->length - at - old);
	memmove(in->at + at, bytes, n);
	in->length += n - old;
}

static void change(struct input *in, const struct input *other)
{
	static const uint8_t edges[] = { 0, 1, 0x7f, 0x80, 0xff };
	uint8_t byte = below(2) ? edges[below(sizeof(edges))] : (uint8_t)below(256);
	size_t at = below(in->length), from = below(other->length), some = below(64);

	switch (below(5)) {
	case 0: replace(in, at, 0, &byte, 1); break;
	case 1: replace(in, at, in->length - at < some ? in->length - at : some, &byte, 0); break;
	case 2:
		some = other->length - from < some ? other->length - from : some;
		replace(in, at, below(2) ? 0 : in->length - at < some ? in->length - at : some, other->at + from, some);
		break;
	default: replace(in, at, in->length > at, &byte, 1);
	}
}

static void run(const struct input *in)
{
	uint8_t *exact = malloc(in->length + !in->length); /* so that a read behind its end is found */

	memcpy(exact, in->at, in->length);
	LLVMFuzzerTestOneInput(exact, in->length);
	free(exact);
}

int main(int argc, char **argv)
{
	static struct input changed;
	int files = 0;

	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 2; i < argc && files < MOST_FILES; i++)
		run(file[files++] = load(argv[i]));
	for (int turn = argc > 1 ? atoi(argv[1]) : 0; turn && files; turn--) {
		changed = *file[below((size_t)files)];
		for (uint32_t n = 1 + below(MOST_CHANGES); n; n--)
			change(&changed, file[below((size_t)files)]);
		run(&changed);
	}
	printf("%d files\n", files);
	return 0;
}
