/*
 * An executable on a file system that this program serves, and that falls silent: whoever opens the file from then on sleeps in the
 * kernel for as long as this program lives, and no signal wakes them. An overlay in front hides what serves it.
 * usage: silent_files DIRECTORY PROGRAM UID MS [map|space] as root; PROGRAM runs as UID with --ms MS
 * Prints "silent PID" when PROGRAM runs and nobody else can open it any more. With map the file is not the program, but what the
 * program's processes see as its perf map. With space no file is hidden: a process of UID is busy for MS while the lock of its own
 * address space is held, by a debugger of its own that reads a page of the file, and wanted by a thread that maps memory. Whoever
 * wants that lock, too (for /proc/PID/environ), sleeps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_NODE 2
#define FOREVER 1000000

static char *content;
static size_t length;
static volatile int *silent;
static int silences_reads;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void answer(int fuse, uint64_t to, int error, const void *data, size_t size)
{
	static char message[1 << 18];
	struct fuse_out_header head = { sizeof(head) + size, error, to };

	memcpy(message, &head, sizeof(head));
	if (size)
		memcpy(message + sizeof(head), data, size);
	if (write(fuse, message, sizeof(head) + size) < 0 && errno != ENOENT)
		_exit(0);
}

static struct fuse_attr attributes(uint64_t node)
{
	struct fuse_attr attr = { 0 };

	attr.ino = node;
	attr.nlink = 1;
	attr.mode = node == FILE_NODE ? S_IFREG | 0755 : S_IFDIR | 0755;
	attr.size = node == FILE_NODE ? length : 0;
	attr.blksize = 4096;
	return attr;
}

static void serve(int fuse)
{
	static char request[1 << 18];

	prctl(PR_SET_PDEATHSIG, 9);
	for (;;) {
		struct fuse_in_header *head = (void *)request;
		void *body = head + 1;

		if (read(fuse, request, sizeof(request)) < 0) {
			if (errno == EINTR || errno == EAGAIN || errno == ENOENT)
				continue;
			_exit(0);
		}
		switch (head->opcode) {
		case FUSE_INIT: {
			struct fuse_init_out out = { .major = 7, .minor = 31, .max_readahead = 1 << 17, .max_write = 1 << 17 };

			answer(fuse, head->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out out = { .attr_valid = FOREVER, .attr = attributes(head->nodeid) };

			answer(fuse, head->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_LOOKUP: {
			struct fuse_entry_out out = { .nodeid = FILE_NODE, .entry_valid = FOREVER, .attr_valid = FOREVER };

			out.attr = attributes(FILE_NODE);
			if (strcmp(body, "program"))
				answer(fuse, head->unique, -ENOENT, NULL, 0);
			else
				answer(fuse, head->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_OPEN:
		case FUSE_OPENDIR: {
			struct fuse_open_out out = { .fh = 1, .open_flags = head->opcode == FUSE_OPEN ? FOPEN_KEEP_CACHE : 0 };

			if (!*silent)
				answer(fuse, head->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_READ: {
			struct fuse_read_in *in = body;

			if (*silent && silences_reads)
				break;
			size_t left = in->offset < length ? length - in->offset : 0;

			answer(fuse, head->unique, 0, content + (left ? in->offset : 0), left < in->size ? left : in->size);
			break;
		}
		case FUSE_STATFS: {
			struct fuse_statfs_out out = { .st = { .namelen = 255, .bsize = 4096 } };

			answer(fuse, head->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_RELEASE:
		case FUSE_RELEASEDIR:
		case FUSE_FLUSH:
		case FUSE_ACCESS:
		case FUSE_READDIR:
			answer(fuse, head->unique, 0, NULL, 0);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			answer(fuse, head->unique, -ENOSYS, NULL, 0);
		}
	}
}

static char *below(const char *directory, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", directory, name) < 0)
		fail("asprintf");
	return path;
}

static volatile int traced;

static void *be_traced(void *unused)
{
	ptrace(PTRACE_TRACEME, 0, 0, 0);
	traced = syscall(SYS_gettid);
	syscall(SYS_tgkill, getpid(), traced, SIGSTOP);
	return unused;
}

static void *want(void *unused)
{
	/* Until the debugger holds the lock. */
	for (;;) {
		munmap(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096);
		silent[1]++;
		usleep(1000);
	}
	return unused;
}

/* Busy for ms of its own CPU time, without a call that takes the lock. */
static int __attribute__((noinline)) busy(long ms)
{
	struct timespec now;

	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	while (now.tv_sec * 1000 + now.tv_nsec / 1000000 < ms);
	return 0;
}

/* The debugger: its child's memory is the file's, which says nothing. */
static void hold(const char *path, long ms, int told)
{
	int file = open(path, O_RDONLY | O_CLOEXEC), ready[2], status, tid;
	char *page;
	pid_t child;

	if (file < 0 || (page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0)) == MAP_FAILED || pipe(ready))
		fail("map");
	if (!(child = fork())) {
		pthread_t thread;

		prctl(PR_SET_PDEATHSIG, 9);
		pthread_create(&thread, NULL, be_traced, NULL);
		pthread_create(&thread, NULL, want, NULL);
		while (!traced)
			usleep(1000);
		tid = traced;
		if (write(ready[1], &tid, sizeof(tid)) != sizeof(tid))
			_exit(1);
		_exit(busy(ms));
	}
	if (read(ready[0], &tid, sizeof(tid)) != sizeof(tid) || waitpid(tid, &status, __WALL) < 0)
		fail("debugger");
	if (write(told, &child, sizeof(child)) != sizeof(child))
		fail("tell");
	while (!*silent)
		usleep(1000);
	/* Until the server ends. */
	ptrace(PTRACE_PEEKDATA, tid, page, 0);
	/* The thread, and then its process, which is not gone before. */
	while (waitpid(-1, &status, __WALL) > 0)
		;
	_exit(0);
}

int main(int argc, char **argv)
{
	char *served, *empty, *seen, *options, *path;
	struct stat stat;
	pid_t server, child;
	int file, fuse, uid, pipes[2];
	char byte;

	if (argc != 5 && argc != 6)
		return 2;
	uid = atoi(argv[3]);
	if ((file = open(argv[2], O_RDONLY)) < 0 || fstat(file, &stat))
		fail(argv[2]);
	length = stat.st_size;
	silences_reads = argc == 6 && !strcmp(argv[5], "space");
	if (!(content = malloc(length)) || read(file, content, length) != (ssize_t)length)
		fail("read");
	silent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (silent == MAP_FAILED || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		fail("unshare");
	if (mount("tmpfs", argv[1], "tmpfs", 0, "mode=755"))
		fail("mount tmpfs");
	mkdir(served = below(argv[1], "served"), 0755);
	mkdir(empty = below(argv[1], "empty"), 0755);
	mkdir(seen = below(argv[1], "seen"), 0755);
	if ((fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC)) < 0)
		fail("/dev/fuse");
	if (asprintf(&options, "fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fuse) < 0 ||
	    mount("fuse", served, "fuse", MS_NOSUID | MS_NODEV, options))
		fail("mount fuse");
	if (!(server = fork()))
		serve(fuse);
	close(fuse);
	if (asprintf(&options, "lowerdir=%s:%s", served, empty) < 0 || mount("overlay", seen, "overlay", 0, options)) {
		kill(server, 9);
		fail("mount overlay");
	}
	path = below(seen, "program");
	if (pipe2(pipes, O_CLOEXEC))
		fail("pipe");
	if (argc == 6 && !strcmp(argv[5], "space")) {
		pid_t debugger = fork();

		if (!debugger) {
			if (setgid(uid) || setuid(uid))
				fail("setuid");
			/* Who changes hands loses this, and is not to be looked at in /proc. */
			prctl(PR_SET_PDEATHSIG, 9);
			prctl(PR_SET_DUMPABLE, 1);
			hold(path, atol(argv[4]), pipes[1]);
		}
		close(pipes[1]);
		if (read(pipes[0], &child, sizeof(child)) != sizeof(child))
			fail("read");
		*silent = 1;
		/* Until the lock is held and wanted: nothing more is mapped. */
		for (int still = 0, before = 0; still < 10 || !before; still = silent[1] == before ? still + 1 : 0) {
			before = silent[1];
			usleep(100000);
		}
		printf("silent %d\n", child);
		fflush(stdout);
		waitpid(debugger, NULL, 0);
		kill(server, 9);
		return 0;
	}
	if (!(child = fork())) {
		prctl(PR_SET_PDEATHSIG, 9);
		if (argc == 6) {
			char *map;

			if (asprintf(&map, "/tmp/perf-%d.map", (int)getpid()) < 0 || (file = open(map, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)) < 0)
				fail("perf map");
			if (mount(path, map, NULL, MS_BIND, NULL))
				fail("mount perf map");
			path = argv[2];
		}
		if (setgid(uid) || setuid(uid))
			fail("setuid");
		if (argc == 6)
			execl(path, "program", "--ms", argv[4], "--names", "none", NULL);
		else
			execl(path, "program", "--ms", argv[4], NULL);
		fail("exec");
	}
	close(pipes[1]);
	/* closed by the exec */
	if (read(pipes[0], &byte, 1) < 0)
		fail("read");
	/* the loader and what it reads */
	usleep(300000);
	*silent = 1;
	printf("silent %d\n", child);
	fflush(stdout);
	waitpid(child, NULL, 0);
	kill(server, 9);
	return 0;
}
