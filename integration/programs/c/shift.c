/*
 * Works in two functions whose shares shift when it is told: "hot" has 5 % of the work, and 50 % after SIGUSR1. Ends by itself after
 * --ms of CPU time.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t shifted;
static volatile unsigned long sink;

static void shift(int signal)
{
	(void)signal;
	shifted = 1;
}

#define WORK(name, step) \
	__attribute__((noinline, noclone)) void name(long rounds) \
	{ \
		for (long i = 0; i < rounds; i++) \
			sink += i * step; \
	}

WORK(hot, 3)
WORK(cold, 5)

static long used_ms(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return used.tv_sec * 1000 + used.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
	long ms = argc > 2 && !strcmp(argv[1], "--ms") ? atol(argv[2]) : 1000;

	signal(SIGUSR1, shift);
	while (used_ms() < ms) {
		long percent = shifted ? 50 : 5;

		hot(1000 * percent);
		cold(1000 * (100 - percent));
	}
	return 0;
}
