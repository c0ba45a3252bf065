/* The functions that plt calls through its PLT. */
#include "truth.h"

NOINLINE uint64_t plt_add(uint64_t a, uint64_t b)
{
	return a + b;
}

NOINLINE uint64_t plt_mix(uint64_t a, uint64_t b)
{
	return (a ^ b) * 31;
}

#define LAZY(n) NOINLINE uint64_t lazy_##n(uint64_t x) { return x * 3 + n; }
#define TEN(m, t) m(t##0) m(t##1) m(t##2) m(t##3) m(t##4) m(t##5) m(t##6) m(t##7) m(t##8) m(t##9)
TEN(LAZY, 1) TEN(LAZY, 2) TEN(LAZY, 3) TEN(LAZY, 4) TEN(LAZY, 5) TEN(LAZY, 6)
