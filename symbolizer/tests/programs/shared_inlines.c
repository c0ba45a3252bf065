#include "shared_inlines.h"

__attribute__((noinline)) long work(long n)
{
	return inner(n);
}

int main(int count, char **arguments)
{
	(void)arguments;
	return work(count) == 2;
}
