/*
 * A binary tree of forked processes, seven in all, that each work for a time of their own.
 * usage: fork_tree [--ms 1400] (of CPU time, of all)
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/wait.h>

#include "truth.h"

#define NODES 7

struct node {
	int pid;
	uint64_t ns;
};

NOINLINE uint64_t tree_burn(uint64_t ms)
{
	uint64_t until = thread_cpu_ns() + ms * 1000000, x = 1;

	while (thread_cpu_ns() < until)
		for (int i = 0; i < 20000; i++) {
			x = x * 6364136223846793005ULL + 1;
			__asm__ volatile("" : "+r"(x));
		}
	return x;
}

NOINLINE uint64_t grow(struct node *nodes, int index, uint64_t ms)
{
	for (int child = 2 * index + 1; child <= 2 * index + 2 && child < NODES; child++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("fork_tree: fork");
			exit(1);
		}
		if (pid == 0) {
			grow(nodes, child, ms);
			exit(0);
		}
	}
	uint64_t before = thread_cpu_ns();

	nodes[index].pid = getpid();
	truth_sink += tree_burn(ms * (uint64_t)(index + 1) / 28);
	nodes[index].ns = thread_cpu_ns() - before;
	while (wait(NULL) > 0)
		;
	return truth_sink;
}

int main(int argc, char **argv)
{
	struct node *nodes = mmap(NULL, sizeof(*nodes) * NODES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct group groups[] = {{.name = "tree_burn"}};

	if (nodes == MAP_FAILED) {
		perror("fork_tree: mmap");
		return 1;
	}
	grow(nodes, 0, option(argc, argv, "ms", 1400));
	for (int i = 0; i < NODES; i++)
		groups[0].ns += nodes[i].ns;
	report_open("c/fork_tree", groups, 1);
	printf(",\"processes\":{");
	for (int i = 0; i < NODES; i++)
		printf("%s\"%d\":%llu", i ? "," : "", nodes[i].pid, (unsigned long long)nodes[i].ns);
	printf("}}\n");
	return 0;
}
