/*
 * Moves its own code onto anonymous pages, as programs do that want huge pages for it: the mapping is no file's any more, the code is.
 * usage: moved_text [--ms 2000]
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "truth.h"

NOINLINE uint64_t leaf_work(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 16; i++) {
		x = x * 31 + i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t middle(uint64_t units)
{
	volatile char room[200];

	room[0] = 1;
	uint64_t x = leaf_work(units) + (uint64_t)room[0];
	KEEP_FRAME();
	return x;
}

NOINLINE uint64_t other_work(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 16; i++) {
		x = x * 37 + i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

/* The mapping that holds `address`, of this program's own file. */
static int find_mapping(uint64_t address, uint64_t *start, uint64_t *end)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long long from, to;
	char line[4096];

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%llx-%llx", &from, &to) == 2 && address >= from && address < to) {
			*start = from;
			*end = to;
			fclose(maps);
			return 0;
		}
	}
	return -1;
}

static void move_text(void)
{
	uint64_t start, end;

	if (find_mapping((uint64_t)leaf_work, &start, &end)) {
		fprintf(stderr, "moved_text: no mapping of its own\n");
		exit(1);
	}
	void *copy = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy == MAP_FAILED) {
		perror("moved_text: mmap");
		exit(1);
	}
	memcpy(copy, (void *)start, end - start);
	if (mprotect(copy, end - start, PROT_READ | PROT_EXEC) ||
	    mremap(copy, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start) == MAP_FAILED) {
		perror("moved_text: mremap");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct group groups[] = {
		{.name = "leaf_work", .run = middle, .weight = 60,
		 .stack = "\"leaf_work\",\"middle\",\"spin_shares\",\"main\""},
		{.name = "other_work", .run = other_work, .weight = 40, .stack = "\"other_work\",\"spin_shares\",\"main\""},
	};

	move_text();
	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/moved_text", groups, COUNT(groups));
	return 0;
}
