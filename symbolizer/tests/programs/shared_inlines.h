/* Two levels of inlined functions, for more than one program: what they have in common can be moved elsewhere. */
static inline __attribute__((always_inline)) long deepest(long n)
{
	volatile long a = 1;
	for (long i = 0; i < n; i++)
		a += i * a;
	return a;
}

static inline __attribute__((always_inline)) long inner(long n)
{
	return deepest(n) + 1;
}
