/*
 * Half of the time in the vDSO, which is in no file, beside plain work.
 * usage: vdso [--ms 2000]
 */
#include "truth.h"

NOINLINE uint64_t read_clock(uint64_t units)
{
	struct timespec now = {0};
	uint64_t x = 0;

	for (uint64_t i = 0; i < units; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		x += (uint64_t)now.tv_nsec;
	}
	return x;
}

NOINLINE uint64_t plain_work(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 16; i++) {
		x = x * 31 + i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

int main(int argc, char **argv)
{
	struct group groups[] = {
		{.name = "read_clock", .run = read_clock, .weight = 50, .stack = "\"read_clock\",\"spin_shares\",\"main\""},
		{.name = "plain_work", .run = plain_work, .weight = 50, .stack = "\"plain_work\",\"spin_shares\",\"main\""},
	};

	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/vdso", groups, COUNT(groups));
	return 0;
}
