/*
 * Four functions with planned shares of 50/30/15/5 % and different stack shapes, at a chosen depth of recursion.
 * usage: shares [--ms 2000] [--depth 0]
 */
#include "truth.h"

NOINLINE uint64_t hot_a(uint64_t units)
{
	uint64_t x = units | 1;

	for (uint64_t i = 0; i < units * 64; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

/* Many live values: the compiler has to push every callee-saved register, and pop them again, all the time. */
NOINLINE uint64_t hot_b_step(uint64_t x, uint64_t y)
{
	uint64_t a = x + 1, b = y ^ 2, c = x * 3, d = y - 4, e = x >> 5, f = y << 6;

	__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f)::"rbx", "r12", "r13", "r14", "r15", "memory");
	return a ^ b ^ c ^ d ^ e ^ f;
}

NOINLINE uint64_t hot_b(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 16; i++)
		x += hot_b_step(x, i);
	return x;
}

/* A frame much larger than a page. */
NOINLINE uint64_t hot_c(uint64_t units)
{
	volatile uint64_t big[3000];
	uint64_t x = units;

	for (uint64_t i = 0; i < 3000; i += 64)
		big[i] = x + i;
	for (uint64_t i = 0; i < units * 32; i++) {
		uint64_t slot = (x + i) % 3000 & ~63ULL;
		big[slot] += i;
		x ^= big[slot] * 31;
	}
	return x;
}

NOINLINE uint64_t hot_d(uint64_t units)
{
	double x = (double)units + 1.5;

	for (uint64_t i = 0; i < units * 16; i++) {
		x = x * 1.0000001 + 0.5;
		__asm__ volatile("" : "+x"(x));
	}
	return (uint64_t)x;
}

static struct group groups[] = {
	{.name = "hot_a", .run = hot_a, .weight = 50},
	{.name = "hot_b", .run = hot_b, .weight = 30},
	{.name = "hot_c", .run = hot_c, .weight = 15},
	{.name = "hot_d", .run = hot_d, .weight = 5},
};

NOINLINE uint64_t descend(uint64_t depth, uint64_t ms)
{
	uint64_t result = depth > 1 ? descend(depth - 1, ms) : spin_shares(groups, COUNT(groups), ms);

	KEEP_FRAME();
	return result + depth;
}

NOINLINE uint64_t level3(uint64_t depth, uint64_t ms)
{
	uint64_t result = depth ? descend(depth, ms) : spin_shares(groups, COUNT(groups), ms);

	KEEP_FRAME();
	return result + 3;
}

NOINLINE uint64_t level2(uint64_t depth, uint64_t ms)
{
	uint64_t result = level3(depth, ms);

	KEEP_FRAME();
	return result + 2;
}

NOINLINE uint64_t level1(uint64_t depth, uint64_t ms)
{
	uint64_t result = level2(depth, ms);

	KEEP_FRAME();
	return result + 1;
}

int main(int argc, char **argv)
{
	uint64_t depth = option(argc, argv, "depth", 0);
	static char stacks[COUNT(groups)][256];

	for (int i = 0; i < COUNT(groups); i++) {
		char recursion[64] = "";

		if (depth)
			snprintf(recursion, sizeof(recursion), "\"descend*%llu\",", (unsigned long long)depth);
		snprintf(stacks[i], sizeof(stacks[i]), "\"%s\",\"spin_shares\",%s\"level3\",\"level2\",\"level1\",\"main\"",
			 groups[i].name, recursion);
		groups[i].stack = stacks[i];
	}
	truth_sink += level1(depth, option(argc, argv, "ms", 2000));
	report("c/shares", groups, COUNT(groups));
	return 0;
}
