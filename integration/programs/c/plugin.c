/* The library that plugin_host opens. */
#include "truth.h"

static NOINLINE uint64_t plugin_burn(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 64; i++) {
		x = (x ^ i) * 0x9e3779b97f4a7c15ULL;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

static NOINLINE uint64_t plugin_inner(uint64_t units)
{
	volatile uint64_t kept[40];

	kept[units % 40] = units;
	uint64_t result = plugin_burn(units);

	return result + kept[units % 40];
}

uint64_t plugin_entry(uint64_t units)
{
	uint64_t result = plugin_inner(units);

	KEEP_FRAME();
	return result + 1;
}
