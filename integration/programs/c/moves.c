/* Gives up the CPU and moves to the other one, in turn. Usage: moves ROUNDS, each of one sleep and one move. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 1;
	cpu_set_t all, one;
	int cpus[2], found = 0;

	if (sched_getaffinity(0, sizeof(all), &all))
		return 1;
	for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
		if (CPU_ISSET(cpu, &all))
			cpus[found++] = cpu;
	if (found < 2)
		return 2;
	for (int i = 0; i < rounds; i++) {
		struct timespec nap = { .tv_nsec = 200000 };

		CPU_ZERO(&one);
		CPU_SET(cpus[i & 1], &one);
		if (sched_setaffinity(0, sizeof(one), &one))
			return 1;
		nanosleep(&nap, NULL);
	}
	return 0;
}
