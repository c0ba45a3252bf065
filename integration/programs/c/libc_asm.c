/*
 * Time in the C library's assembly (memcpy, strlen, memset) and in a callback that the library calls (qsort).
 * usage: libc_asm [--ms 2000]
 */
#include "truth.h"

static char source[256 * 1024], target[256 * 1024];

NOINLINE uint64_t do_memcpy(uint64_t units)
{
	for (uint64_t i = 0; i < units; i++) {
		memcpy(target, source, 4096 + i % 32);
		__asm__ volatile("" ::"r"(target) : "memory");
	}
	return (uint64_t)target[units % sizeof(target)];
}

NOINLINE uint64_t do_strlen(uint64_t units)
{
	uint64_t x = 0;

	for (uint64_t i = 0; i < units; i++) {
		x += strlen(source + i % 32);
		__asm__ volatile("" : "+r"(x)::"memory");
	}
	return x;
}

NOINLINE uint64_t do_memset(uint64_t units)
{
	for (uint64_t i = 0; i < units; i++) {
		memset(target, (int)i, 8192 + i % 64);
		__asm__ volatile("" ::"r"(target) : "memory");
	}
	return (uint64_t)target[units % 8192];
}

NOINLINE int by_value(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return a < b ? -1 : a > b;
}

NOINLINE uint64_t do_qsort(uint64_t units)
{
	static uint32_t values[512];
	uint64_t random = units | 1;

	for (uint64_t round = 0; round < units / 64 + 1; round++) {
		for (int i = 0; i < COUNT(values); i++)
			values[i] = (uint32_t)truth_random(&random);
		qsort(values, COUNT(values), sizeof(values[0]), by_value);
	}
	return values[units % COUNT(values)];
}

int main(int argc, char **argv)
{
	struct group groups[] = {
		{.name = "do_memcpy", .run = do_memcpy, .weight = 40, .stack = "\"do_memcpy\",\"spin_shares\",\"main\""},
		{.name = "do_strlen", .run = do_strlen, .weight = 25, .stack = "\"do_strlen\",\"spin_shares\",\"main\""},
		{.name = "do_memset", .run = do_memset, .weight = 15, .stack = "\"do_memset\",\"spin_shares\",\"main\""},
		{.name = "do_qsort", .run = do_qsort, .weight = 20, .stack = "\"do_qsort\",\"spin_shares\",\"main\""},
	};

	memset(source, 'x', sizeof(source) - 1);
	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/libc_asm", groups, COUNT(groups));
	return 0;
}
