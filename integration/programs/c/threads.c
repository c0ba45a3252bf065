/*
 * Threads with names of their own and a main thread that renames itself half-way.
 * usage: threads [--ms 2000] (of CPU time, of each thread)
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/prctl.h>

#include "truth.h"

struct worker {
	const char *name;
	uint64_t ms, ns;
	pthread_t thread;
};

NOINLINE uint64_t thread_burn(uint64_t ms)
{
	uint64_t until = thread_cpu_ns() + ms * 1000000, x = 1;

	while (thread_cpu_ns() < until)
		for (int i = 0; i < 20000; i++) {
			x = x * 6364136223846793005ULL + 1;
			__asm__ volatile("" : "+r"(x));
		}
	return x;
}

NOINLINE uint64_t work_of(struct worker *worker)
{
	uint64_t before = thread_cpu_ns(), result = thread_burn(worker->ms);

	worker->ns += thread_cpu_ns() - before;
	return result;
}

static void *thread_main(void *argument)
{
	struct worker *worker = argument;

	pthread_setname_np(pthread_self(), worker->name);
	truth_sink += work_of(worker);
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t ms = option(argc, argv, "ms", 2000), total = 0;
	struct worker workers[] = {
		{.name = "reader", .ms = ms / 2},
		{.name = "writer", .ms = ms / 4},
		{.name = "name of 15 char", .ms = ms / 4},
		{.name = "first name", .ms = ms / 2},
		{.name = "second name", .ms = ms / 2},
	};

	for (int i = 0; i < 3; i++)
		if (pthread_create(&workers[i].thread, NULL, thread_main, &workers[i])) {
			perror("threads: pthread_create");
			return 1;
		}
	prctl(PR_SET_NAME, workers[3].name);
	truth_sink += work_of(&workers[3]);
	prctl(PR_SET_NAME, workers[4].name);
	truth_sink += work_of(&workers[4]);
	for (int i = 0; i < 3; i++)
		pthread_join(workers[i].thread, NULL);
	for (int i = 0; i < COUNT(workers); i++)
		total += workers[i].ns;
	struct group groups[] = {{.name = "thread_burn", .ns = total, .stack = "\"thread_burn\",\"work_of\""}};

	report_open("c/threads", groups, 1);
	printf(",\"threads\":{");
	for (int i = 0; i < COUNT(workers); i++)
		printf("%s\"%s\":%llu", i ? "," : "", workers[i].name, (unsigned long long)workers[i].ns);
	printf("}}\n");
	return 0;
}
