/*
 * Frames whose CFA is not sp or fp plus a constant: realigned stacks (GCC's DRAP: the CFA is behind a pointer), variable
 * arguments, alloca and variable-length arrays, rbx as frame register. Built with -mstackrealign and AVX.
 * usage: realign [--ms 2000]
 */
#include <alloca.h>
#include <stdarg.h>

#include "truth.h"

NOINLINE uint64_t burn(volatile uint64_t *slots, uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 32; i++) {
		x = x * 31 + slots[i & 7];
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t drap_varargs(uint64_t units, ...)
{
	__attribute__((aligned(128))) volatile uint64_t aligned[64];
	va_list arguments;

	va_start(arguments, units);
	for (int i = 0; i < 8; i++)
		aligned[i] = va_arg(arguments, uint64_t);
	va_end(arguments);
	uint64_t result = burn(aligned, units);

	KEEP_FRAME();
	return result + aligned[units & 7];
}

NOINLINE uint64_t with_varargs(uint64_t units)
{
	uint64_t result = drap_varargs(units, 1ULL, 2ULL, 3ULL, 4ULL, 5ULL, 6ULL, 7ULL, 8ULL);

	KEEP_FRAME();
	return result + 1;
}

/* Alignment, alloca and a variable-length array at once: frame pointer, base pointer and CFA pointer all differ. */
NOINLINE uint64_t with_alloca(uint64_t units)
{
	__attribute__((aligned(64))) volatile uint64_t aligned[32];
	uint64_t length = units % 300 + 8;
	volatile uint64_t *dynamic = alloca(length * sizeof(uint64_t));
	volatile uint64_t variable[length];

	for (uint64_t i = 0; i < 8; i++)
		aligned[i] = dynamic[i] = variable[i] = units + i;
	uint64_t result = burn(aligned, units) + burn(dynamic, units) + burn(variable, units);

	KEEP_FRAME();
	return result + aligned[units & 7];
}

NOINLINE uint64_t with_vectors(uint64_t units)
{
	typedef double vector __attribute__((vector_size(32)));
	volatile vector kept = {1, 2, 3, 4};
	vector x = kept;

	for (uint64_t i = 0; i < units * 8; i++)
		x = x * kept + 0.5;
	kept = x;
	return (uint64_t)x[0];
}

int main(int argc, char **argv)
{
	struct group groups[] = {
		{.name = "with_varargs", .run = with_varargs, .weight = 40, .stack = "\"with_varargs\",\"spin_shares\",\"main\""},
		{.name = "with_alloca", .run = with_alloca, .weight = 40, .stack = "\"with_alloca\",\"spin_shares\",\"main\""},
		{.name = "with_vectors", .run = with_vectors, .weight = 20, .stack = "\"with_vectors\",\"spin_shares\",\"main\""},
	};

	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/realign", groups, COUNT(groups));
	return 0;
}
