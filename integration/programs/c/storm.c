/*
 * Children that live as long as 20 ms of CPU time take, made by vfork and exec, RATE a second in all but never more than
 * PARALLEL at a time. The parent sleeps in wait; the truth is what wait4 says that the children used.
 * usage: storm [--ms 3000] [--rate 200] [--child-ms 20] [--parallel 2]
 */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/wait.h>

#include "truth.h"

NOINLINE uint64_t storm_child_burn(uint64_t ms)
{
	uint64_t until = thread_cpu_ns() + ms * 1000000, x = 1;

	while (thread_cpu_ns() < until)
		for (int i = 0; i < 20000; i++) {
			x = x * 6364136223846793005ULL + 1;
			__asm__ volatile("" : "+r"(x));
		}
	return x;
}

static uint64_t reaped, children_ns;

static int reap(int flags)
{
	struct rusage used;
	int status;
	pid_t child = wait4(-1, &status, flags, &used);

	if (child <= 0)
		return 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "storm: child %d ended with status %#x\n", (int)child, status);
		exit(1);
	}
	reaped++;
	children_ns += ((uint64_t)used.ru_utime.tv_sec + (uint64_t)used.ru_stime.tv_sec) * 1000000000ULL +
		       ((uint64_t)used.ru_utime.tv_usec + (uint64_t)used.ru_stime.tv_usec) * 1000ULL;
	return 1;
}

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "child") == 0) {
		truth_sink = storm_child_burn(strtoull(argv[2], NULL, 10));
		return 0;
	}
	uint64_t ms = option(argc, argv, "ms", 3000), rate = option(argc, argv, "rate", 200);
	uint64_t parallel = option(argc, argv, "parallel", 2), started = 0;
	const char *child_ms = text_option(argc, argv, "child-ms", "20");
	char *child_argv[] = {"/proc/self/exe", "child", (char *)child_ms, NULL};
	uint64_t start = truth_clock(CLOCK_MONOTONIC), end = start + ms * 1000000;
	static char self[4096];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length <= 0) {
		perror("storm: cannot read /proc/self/exe");
		return 1;
	}
	for (;;) {
		uint64_t now = truth_clock(CLOCK_MONOTONIC);

		if (now >= end)
			break;
		while (reap(WNOHANG))
			;
		if (started - reaped >= parallel) {
			reap(0);
			continue;
		}
		uint64_t due = start + started * 1000000000ULL / rate;

		if (due > now) {
			struct timespec pause = {.tv_nsec = (long)((due - now) % 1000000000ULL)};

			nanosleep(&pause, NULL);
			continue;
		}
		pid_t child = vfork();

		if (child == 0) {
			execv(self, child_argv);
			_exit(127);
		}
		if (child < 0) {
			perror("storm: vfork");
			return 1;
		}
		started++;
	}
	while (reaped < started)
		reap(0);

	struct group groups[] = {
		{.name = "storm_child_burn", .ns = children_ns, .stack = "\"storm_child_burn\",\"main\""},
	};

	report_open("c/storm", groups, 1);
	printf(",\"children\":%llu,\"wall_ns\":%llu}\n", (unsigned long long)reaped,
	       (unsigned long long)(truth_clock(CLOCK_MONOTONIC) - start));
	return 0;
}
