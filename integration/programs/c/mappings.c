/*
 * A process with COUNT executable mappings: a page of its own file again and again, which the kernel cannot merge. Then it
 * works in mappings_burn.
 * usage: mappings [--count 50000] [--ms 3000]
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>

#include "truth.h"

NOINLINE uint64_t mappings_burn(uint64_t ms)
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
	uint64_t count = option(argc, argv, "count", 50000), ms = option(argc, argv, "ms", 3000);
	int self = open("/proc/self/exe", O_RDONLY);
	char *at = mmap(NULL, count * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (self < 0 || at == MAP_FAILED) {
		perror("mappings: cannot reserve");
		return 1;
	}
	for (uint64_t i = 0; i < count; i++)
		if (mmap(at + i * 4096, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, self, 0) == MAP_FAILED) {
			perror("mappings: mmap");
			return 1;
		}
	uint64_t before = thread_cpu_ns();
	truth_sink = mappings_burn(ms);
	struct group groups[] = {
		{.name = "mappings_burn", .ns = thread_cpu_ns() - before, .stack = "\"mappings_burn\",\"main\""},
	};

	report_open("c/mappings", groups, 1);
	printf("}\n");
	return 0;
}
