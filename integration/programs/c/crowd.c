/*
 * COUNT processes that exist and sleep, each of an exec of its own; when all do, this one works in crowd_burn.
 * usage: crowd [--count 2000] [--ms 3000]
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "truth.h"

NOINLINE uint64_t crowd_burn(uint64_t ms)
{
	uint64_t until = thread_cpu_ns() + ms * 1000000, x = 1;

	while (thread_cpu_ns() < until)
		for (int i = 0; i < 20000; i++) {
			x = x * 6364136223846793005ULL + 1;
			__asm__ volatile("" : "+r"(x));
		}
	return x;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "sleeper") == 0) {
		/* None outlives a crowd that is killed. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == 1)
			return 1;
		pause();
		return 0;
	}
	uint64_t count = option(argc, argv, "count", 2000), ms = option(argc, argv, "ms", 3000);
	char *sleeper[] = {"/proc/self/exe", "sleeper", NULL};
	pid_t *children = calloc(count, sizeof(*children));

	for (uint64_t i = 0; i < count; i++) {
		children[i] = vfork();
		if (children[i] == 0) {
			execv("/proc/self/exe", sleeper);
			_exit(127);
		}
		if (children[i] < 0) {
			perror("crowd: vfork");
			return 1;
		}
	}
	/* Whoever waits for the crowd to be complete reads this line; it goes on when its standard input ends. */
	printf("complete\n");
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	uint64_t before = thread_cpu_ns();
	truth_sink = crowd_burn(ms);
	uint64_t used = thread_cpu_ns() - before;

	for (uint64_t i = 0; i < count; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	struct group groups[] = {
		{.name = "crowd_burn", .ns = used, .stack = "\"crowd_burn\",\"main\""},
	};

	report_open("c/crowd", groups, 1);
	printf(",\"children\":%llu}\n", (unsigned long long)count);
	return 0;
}
