/* Page faults in known shares: fault_a has three of four, fault_b the fourth. Usage: faults ROUNDS, each of 512 faults. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096
#define ROUND 512

static char *pages;

__attribute__((noipa)) static void fault_a(int first, int last)
{
	for (int i = first; i < last; i++)
		((volatile char *)pages)[(long)i * PAGE] = 1;
}

__attribute__((noipa)) static void fault_b(int first, int last)
{
	for (int i = first; i < last; i++)
		((volatile char *)pages)[(long)i * PAGE] = 2;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 1;

	for (int i = 0; i < rounds; i++) {
		pages = mmap(NULL, ROUND * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pages == MAP_FAILED)
			return 1;
		madvise(pages, ROUND * PAGE, MADV_NOHUGEPAGE);
		fault_a(0, ROUND * 3 / 4);
		fault_b(ROUND * 3 / 4, ROUND);
		munmap(pages, ROUND * PAGE);
	}
	return 0;
}
