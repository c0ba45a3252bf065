/* The library that plt opens again and again: each of its calls is bound on first use (_dl_runtime_resolve). */
#include <stdint.h>

#define DECLARE(n) extern uint64_t lazy_##n(uint64_t x);
#define CALL(n) x += lazy_##n(x);
#define TEN(m, t) m(t##0) m(t##1) m(t##2) m(t##3) m(t##4) m(t##5) m(t##6) m(t##7) m(t##8) m(t##9)
#define ALL(m) TEN(m, 1) TEN(m, 2) TEN(m, 3) TEN(m, 4) TEN(m, 5) TEN(m, 6)

ALL(DECLARE)

uint64_t lazy_all(uint64_t x)
{
	ALL(CALL)
	return x;
}
