/*
 * A process that is hard on those who look at it: tens of thousands of executable mappings, and a fifo, an endless chain of
 * links or a directory where its perf map should be. Works in made code, so that somebody wants that map.
 * usage: hostile [--ms 2000] [--mappings 0] [--map none|fifo|links|directory|device]
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/stat.h>

#include "truth.h"

typedef uint64_t (*compiled)(uint64_t);

static compiled made;

NOINLINE uint64_t call_made(uint64_t units)
{
	uint64_t result = made(units);

	KEEP_FRAME();
	return result + 1;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	/* push %rbp; mov %rsp,%rbp; lea 1(,%rdi,8),%rax; loop: dec %rax; jne loop; pop %rbp; ret */
	static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x8d, 0x04, 0xfd, 1, 0, 0, 0,
					     0x48, 0xff, 0xc8, 0x75, 0xfb, 0x5d, 0xc3};
	uint64_t mappings = option(argc, argv, "mappings", 0);
	const char *kind = text_option(argc, argv, "map", "none");
	struct group groups[] = {{.name = "call_made", .run = call_made, .weight = 1, .stack = "\"call_made\",\"spin_shares\",\"main\""}};
	char path[64];

	unsigned char *area = mmap(NULL, 4096 * (mappings + 1) * 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		fail("hostile: mmap");
	/* Every other page executable: neighbours cannot be merged. */
	for (uint64_t i = 0; i <= mappings; i++)
		if (mprotect(area + i * 8192, 4096, PROT_READ | PROT_WRITE | PROT_EXEC))
			fail("hostile: mprotect");
	memcpy(area + mappings * 8192, code, sizeof(code));
	made = (compiled)(area + mappings * 8192);

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	unlink(path);
	if (strcmp(kind, "fifo") == 0 && mkfifo(path, 0644))
		fail(path);
	if (strcmp(kind, "links") == 0 && symlink(path, path))
		fail(path);
	if (strcmp(kind, "device") == 0 && symlink("/dev/zero", path))
		fail(path);
	if (strcmp(kind, "directory") == 0 && mkdir(path, 0755))
		fail(path);
	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/hostile", groups, COUNT(groups));
	if (remove(path) && strcmp(kind, "none") != 0)
		fail(path);
	return 0;
}
