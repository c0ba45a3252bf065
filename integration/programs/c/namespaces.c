/*
 * A child in mount and pid namespaces of its own, run from a file that only its mount namespace has, with libraries bound
 * elsewhere. The parent waits and prints the child's pid as the host sees it.
 * usage: namespaces [--ms 2000] [--dir DIRECTORY]   (needs root; DIRECTORY must exist and is covered by a tmpfs)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "truth.h"

NOINLINE uint64_t inside_burn(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 64; i++) {
		x = x * 6364136223846793005ULL + 1;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t inside_level(uint64_t units)
{
	uint64_t result = inside_burn(units);

	KEEP_FRAME();
	return result + 1;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void copy_self(const char *path)
{
	int from = open("/proc/self/exe", O_RDONLY), to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	struct stat status;

	if (from < 0 || to < 0 || fstat(from, &status))
		fail("namespaces: cannot copy the program");
	for (off_t done = 0; done < status.st_size;)
		if (sendfile(to, from, &done, (size_t)(status.st_size - done)) <= 0)
			fail("namespaces: cannot copy the program");
	close(from);
	close(to);
}

int main(int argc, char **argv)
{
	const char *ms = text_option(argc, argv, "ms", "2000"), *directory = text_option(argc, argv, "dir", "/mnt");
	static char path[4096];
	int status;

	if (argc > 2 && strcmp(argv[1], "inside") == 0) {
		struct group groups[] = {
			{.name = "inside_burn", .run = inside_level, .weight = 1,
			 .stack = "\"inside_burn\",\"inside_level\",\"spin_shares\",\"main\""},
		};

		spin_shares(groups, 1, strtoull(argv[2], NULL, 10));
		report_open("c/namespaces", groups, 1);
		printf(",\"host_pid\":%s}\n", getenv("HOST_PID") ? getenv("HOST_PID") : "0");
		return 0;
	}
	if (unshare(CLONE_NEWNS | CLONE_NEWPID))
		fail("namespaces: unshare");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("tmpfs", directory, "tmpfs", 0, "size=16m"))
		fail("namespaces: mount");
	snprintf(path, sizeof(path), "%s/only_inside", directory);
	copy_self(path);

	int ready[2];

	if (pipe(ready))
		fail("namespaces: pipe");
	pid_t child = fork();

	if (child == 0) {
		char pid[32] = "";

		/* The child cannot see its host pid, so its parent tells it. */
		if (read(ready[0], pid, sizeof(pid) - 1) <= 0)
			_exit(1);
		setenv("HOST_PID", pid, 1);
		execl(path, "only_inside", "inside", ms, (char *)NULL);
		_exit(127);
	}
	if (child < 0)
		fail("namespaces: fork");
	dprintf(ready[1], "%d", (int)child);
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
