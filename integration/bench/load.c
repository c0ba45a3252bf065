/*
 * Keeps one CPU busy at an exact depth of stack: FRAMES user frames, from the working function to _start, each of a
 * function of its own, with frames of different sizes. With --nap it rests that many microseconds after each millisecond.
 * usage: load [--frames 7] [--nap 0]     (6 to 46 frames; runs until it is killed)
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone, noipa))
/* After a call, keeps it from becoming a jump. */
#define KEEP_FRAME() __asm__ volatile("" ::: "memory")

static volatile uint64_t sink;
static long nap_us;

static NOINLINE void work(uint64_t turns)
{
	for (;;) {
		uint64_t x = turns;

		for (uint64_t i = 0; i < turns; i++) {
			x = x * 6364136223846793005ULL + i;
			__asm__ volatile("" : "+r"(x));
		}
		sink = x;
		if (nap_us) {
			struct timespec nap = {.tv_sec = nap_us / 1000000, .tv_nsec = nap_us % 1000000 * 1000};

			nanosleep(&nap, NULL);
		}
	}
}

typedef void (*level)(int);
static const level levels[];

/* Level n calls level n - 1 until `left` is used up; each has a frame of another size. */
#define LEVEL(n) \
	static NOINLINE void level_##n(int left) \
	{ \
		volatile uint64_t kept[2 + (n) % 13]; \
		kept[left & 1] = (uint64_t)left; \
		if (left <= 0) \
			work(1000000); \
		else \
			levels[left - 1](left - 1); \
		KEEP_FRAME(); \
		sink += kept[left & 1]; \
	}
#define TEN(t) LEVEL(t##0) LEVEL(t##1) LEVEL(t##2) LEVEL(t##3) LEVEL(t##4) LEVEL(t##5) LEVEL(t##6) LEVEL(t##7) LEVEL(t##8) LEVEL(t##9)
#define NAME(n) level_##n,
#define NAMES(t) NAME(t##0) NAME(t##1) NAME(t##2) NAME(t##3) NAME(t##4) NAME(t##5) NAME(t##6) NAME(t##7) NAME(t##8) NAME(t##9)

TEN(1) TEN(2) TEN(3) TEN(4)

static const level levels[] = {NAMES(1) NAMES(2) NAMES(3) NAMES(4)};

int main(int argc, char **argv)
{
	int frames = 7;

	for (int i = 1; i + 1 < argc; i++) {
		if (strcmp(argv[i], "--frames") == 0)
			frames = atoi(argv[i + 1]);
		if (strcmp(argv[i], "--nap") == 0)
			nap_us = atol(argv[i + 1]);
	}
	/* work, main, __libc_start_call_main, __libc_start_main and _start are five; the rest are levels. */
	int depth = frames - 6;

	if (depth < 0 || depth >= (int)(sizeof(levels) / sizeof(levels[0])))
		return 2;
	levels[depth](depth);
	return 0;
}
