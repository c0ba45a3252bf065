/*
 * Leaves deep recursion by longjmp, over and over, and works both at the bottom and after the jump.
 * usage: longjmp [--ms 2000]
 */
#include <setjmp.h>

#include "truth.h"

static jmp_buf landing;

NOINLINE uint64_t deep_burn(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 64; i++) {
		x = x * 6364136223846793005ULL + 7;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t landed_burn(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 64; i++) {
		x = (x >> 3 | x << 61) + i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t dive(int depth, uint64_t units)
{
	if (depth == 0)
		return 0;
	if (depth == 1) {
		truth_sink = deep_burn(units);
		longjmp(landing, 1);
	}
	uint64_t result = dive(depth - 1, units);

	KEEP_FRAME();
	return result + 1;
}

NOINLINE uint64_t jump_out(uint64_t units)
{
	if (setjmp(landing) == 0)
		return dive(50, units);
	return 1;
}

NOINLINE uint64_t jump_then_work(uint64_t units)
{
	if (setjmp(landing) == 0)
		return dive(10, 0);
	uint64_t result = landed_burn(units);

	KEEP_FRAME();
	return result + 1;
}

int main(int argc, char **argv)
{
	struct group groups[] = {
		{.name = "deep_burn", .run = jump_out, .weight = 50,
		 .stack = "\"deep_burn\",\"dive*50\",\"jump_out\",\"spin_shares\",\"main\""},
		{.name = "landed_burn", .run = jump_then_work, .weight = 50,
		 .stack = "\"landed_burn\",\"jump_then_work\",\"spin_shares\",\"main\""},
	};

	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/longjmp", groups, COUNT(groups));
	return 0;
}
