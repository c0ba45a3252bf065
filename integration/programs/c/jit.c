/*
 * Makes code at run time (x86-64, with frame pointers; in an anonymous mapping, or one that has the name of a file) and works in it. Names are told by a perf
 * map whose last line is torn, as when its writer is caught in the middle, or by a jitdump file.
 * usage: jit [--ms 2000] [--names perf|jitdump|none] [--dir /tmp] [--memory anonymous|memfd|shared]
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>

#include "truth.h"

#define CODE_BYTES 4096
#define INNER_AT 0
#define OUTER_AT 256

typedef uint64_t (*compiled)(uint64_t);

static unsigned char *code;
static size_t inner_bytes, outer_bytes;

/* inner(n): counts n * 64 down. */
static const unsigned char inner_code[] = {
	0x55,                         /* push %rbp */
	0x48, 0x89, 0xe5,             /* mov %rsp,%rbp */
	0x48, 0x89, 0xf8,             /* mov %rdi,%rax */
	0x48, 0xc1, 0xe0, 0x06,       /* shl $6,%rax */
	0x48, 0x85, 0xc0,             /* test %rax,%rax */
	0x74, 0x05,                   /* je done */
	0x48, 0xff, 0xc8,             /* loop: dec %rax */
	0x75, 0xfb,                   /* jne loop */
	0x5d,                         /* done: pop %rbp */
	0xc3,                         /* ret */
};

/* outer(n): calls inner(n). */
static const unsigned char outer_code[] = {
	0x55,                         /* push %rbp */
	0x48, 0x89, 0xe5,             /* mov %rsp,%rbp */
	0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, /* movabs $inner,%rax */
	0xff, 0xd0,                   /* call *%rax */
	0x5d,                         /* pop %rbp */
	0xc3,                         /* ret */
};

static void compile(const char *memory)
{
	uint64_t inner;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, fd = -1;

	if (strcmp(memory, "memfd") == 0) {
		fd = memfd_create("doublemapper", MFD_CLOEXEC);
		flags = MAP_SHARED;
		if (fd < 0 || ftruncate(fd, CODE_BYTES)) {
			perror("jit: memfd");
			exit(1);
		}
	} else if (strcmp(memory, "shared") == 0) {
		/* maps calls it /dev/zero */
		flags = MAP_SHARED | MAP_ANONYMOUS;
	}
	code = mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, flags, fd, 0);
	if (code == MAP_FAILED) {
		perror("jit: mmap");
		exit(1);
	}
	memcpy(code + INNER_AT, inner_code, inner_bytes = sizeof(inner_code));
	memcpy(code + OUTER_AT, outer_code, outer_bytes = sizeof(outer_code));
	inner = (uint64_t)(code + INNER_AT);
	memcpy(code + OUTER_AT + 6, &inner, sizeof(inner));
}

static void write_perf_map(const char *directory)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s/perf-%d.map", directory, (int)getpid());
	FILE *map = fopen(path, "w");

	if (!map) {
		perror(path);
		exit(1);
	}
	fprintf(map, "%llx %zx jit_inner\n", (unsigned long long)(uintptr_t)(code + INNER_AT), inner_bytes);
	fprintf(map, "%llx %zx jit outer with spaces\n", (unsigned long long)(uintptr_t)(code + OUTER_AT), outer_bytes);
	fprintf(map, "%llx 1", (unsigned long long)(uintptr_t)(code + 2048));
	fclose(map);
}

/* The format is described in the kernel's tools/perf/Documentation/jitdump-specification.txt. */
struct jitdump_header {
	uint32_t magic, version, total_size, elf_machine, pad, pid;
	uint64_t timestamp, flags;
};

struct jitdump_load {
	uint32_t id, total_size;
	uint64_t timestamp;
	uint32_t pid, tid;
	uint64_t vma, code_addr, code_size, code_index;
};

static void write_load(int file, uint64_t index, const char *name, unsigned char *at, size_t bytes)
{
	struct jitdump_load load = {
		.total_size = (uint32_t)(sizeof(load) + strlen(name) + 1 + bytes),
		.timestamp = truth_clock(CLOCK_MONOTONIC),
		.pid = (uint32_t)getpid(),
		.tid = (uint32_t)getpid(),
		.vma = (uint64_t)at,
		.code_addr = (uint64_t)at,
		.code_size = bytes,
		.code_index = index,
	};

	if (write(file, &load, sizeof(load)) < 0 || write(file, name, strlen(name) + 1) < 0 || write(file, at, bytes) < 0) {
		perror("jit: jitdump");
		exit(1);
	}
}

static void write_jitdump(const char *directory)
{
	char path[4096];
	struct jitdump_header header = {
		.magic = 0x4A695444,
		.version = 1,
		.total_size = sizeof(header),
		.elf_machine = 62,
		.pid = (uint32_t)getpid(),
		.timestamp = truth_clock(CLOCK_MONOTONIC),
	};

	snprintf(path, sizeof(path), "%s/jit-%d.dump", directory, (int)getpid());
	int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	if (file < 0 || write(file, &header, sizeof(header)) < 0) {
		perror(path);
		exit(1);
	}
	/* The mapping is how a profiler learns of the file; it must be executable, and stay. */
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) == MAP_FAILED) {
		perror("jit: jitdump mapping");
		exit(1);
	}
	write_load(file, 0, "jit_inner", code + INNER_AT, inner_bytes);
	write_load(file, 1, "jit outer with spaces", code + OUTER_AT, outer_bytes);
}

NOINLINE uint64_t call_compiled(uint64_t units)
{
	uint64_t result = ((compiled)(code + OUTER_AT))(units);

	KEEP_FRAME();
	return result + 1;
}

NOINLINE uint64_t ahead_of_time(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 16; i++) {
		x = x * 31 + i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

int main(int argc, char **argv)
{
	const char *names = text_option(argc, argv, "names", "perf");
	const char *directory = text_option(argc, argv, "dir", "/tmp");
	struct group groups[] = {
		{.name = "call_compiled", .run = call_compiled, .weight = 60,
		 .stack = "\"jit_inner\",\"jit outer with spaces\",\"call_compiled\",\"spin_shares\",\"main\""},
		{.name = "ahead_of_time", .run = ahead_of_time, .weight = 40, .stack = "\"ahead_of_time\",\"spin_shares\",\"main\""},
	};

	compile(text_option(argc, argv, "memory", "anonymous"));
	if (strcmp(names, "perf") == 0)
		write_perf_map(directory);
	else if (strcmp(names, "jitdump") == 0)
		write_jitdump(directory);
	else
		groups[0].stack = "\"call_compiled\",\"spin_shares\",\"main\"";
	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/jit", groups, COUNT(groups));
	return 0;
}
