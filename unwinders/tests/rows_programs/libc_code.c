/* A program that is in its C library nearly always, whatever that was compiled with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char from[1 << 16], to[1 << 16];
static unsigned numbers[1 << 12];

static int compare(const void *a, const void *b)
{
	struct timespec now;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
	return x < y ? -1 : x > y;
}

int main(void)
{
	char text[64];
	unsigned seed = 1;
	for (;;) {
		for (int i = 0; i < 1 << 12; i++)
			numbers[i] = seed = seed * 1664525 + 1013904223;
		qsort(numbers, 1 << 12, sizeof(numbers[0]), compare);
		for (int i = 0; i < 500; i++)
			memcpy(to, from, sizeof(to));
		for (int i = 0; i < 2000; i++)
			snprintf(text, sizeof(text), "%d %s %.3f", i, "abc", i / 7.0);
		for (int i = 0; i < 2000; i++)
			free(malloc(i * 13));
	}
}
