/*
 * The kernel half on arm64, which the Rust side does not load yet: loads the object, fills the unwinder's tables for this
 * process by hand, and compares the stacks of its own samples with what it does. Prints a line for each thing that it proved.
 * usage: walk OBJECT
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#include "arch.h"

#define HERTZ 199
#define MAX_CPUS 16
#define MAX_INSTRUCTIONS 50000 /* the ceiling of judge/mod.rs */
/* struct rt_sigframe of arm64: 128 bytes of siginfo, then the ucontext with its mcontext at 176, and x0 8 bytes into that */
#define SIGNAL_REGS (128 + 176 + 8)

static void fail(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	exit(1);
}

/* Work, each kind in a section of its own, so that an address tells where it is. */
#define IN(name) __attribute__((noinline, noclone, used, section(name)))
extern char __start_leaf_text[], __stop_leaf_text[], __start_read_text[], __stop_read_text[];
extern char __start_outer_text[], __stop_outer_text[], __start_middle_text[], __stop_middle_text[];
extern char __start_handler_text[], __stop_handler_text[];
#define INSIDE(address, name) ((address) >= (u64)__start_##name && (address) < (u64)__stop_##name)

static int zeros;

/* A leaf: no frame record, its caller is in x30 alone. */
IN("leaf_text") u64 leaf(u64 x)
{
	for (int i = 0; i < 20000; i++)
		asm volatile("add %0, %0, #3\n eor %0, %0, %0, lsl #7" : "+r"(x));
	return x;
}

/* A leaf too, whose time passes in the kernel. */
IN("read_text") long read_zeros(void *buffer, unsigned long bytes)
{
	register long number asm("x8") = SYS_read;
	register long x0 asm("x0") = zeros;
	register void *x1 asm("x1") = buffer;
	register unsigned long x2 asm("x2") = bytes;

	asm volatile("svc #0" : "+r"(x0) : "r"(number), "r"(x1), "r"(x2) : "memory");
	return x0;
}

static char buffer[1 << 20];
enum work { COMPUTE, READ, SIGNALS } work;

IN("middle_text") u64 middle(u64 x)
{
	if (work == READ)
		return x + read_zeros(buffer, sizeof(buffer)) + 1;
	return leaf(x) + 1;
}

/* From the handler's frame record, at the bottom of its frame, to the stack pointer before its first instruction. */
static u64 handler_frame;

IN("handler_text") void handler(int signal)
{
	volatile u64 x = leaf(signal);

	handler_frame = (u64)__builtin_dwarf_cfa() - (u64)__builtin_frame_address(0);

	for (int i = 0; i < 20; i++)
		x = leaf(x) + 1;
}

IN("outer_text") u64 outer(long ms)
{
	struct timespec now, end;
	volatile u64 x = 1;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += (end.tv_nsec / 1000000 + ms) / 1000;
	end.tv_nsec = (end.tv_nsec / 1000000 + ms) % 1000 * 1000000;
	do {
		if (work == SIGNALS)
			raise(SIGUSR1);
		else
			x = middle(x) + 1;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
	return x;
}

/* What was sampled. */
struct counts {
	u64 samples, in_kernel, copied, leaf, callers, complete, guessed, signals;
	u32 ends[256];
	char odd[2048];
};

static u64 *frames_of(const struct sample *s) { return (u64 *)(s + 1) + s->kernel_frames; }

static int on_sample(void *context, void *record, size_t bytes)
{
	struct counts *c = context;
	const struct sample *s = record;
	u64 *frames = frames_of(s), mask = (1ull << 56) - 1;
	int callers = 0, n = s->user_frames;

	if (bytes < sizeof(*s) || s->pid != (u32)getpid())
		return 0;
	u64 first = n ? frames[0] & mask : 0;
	if (!n && s->stack_bytes) {
		const struct continuation *at = (void *)(frames + n);

		c->copied++;
		first = at->ip;
		/* what was copied is the stack, and the registers agree with it */
		if (at->regs[REG_SP] != at->sp || at->regs[REG_FP] != at->fp || !at->leaf)
			fail("the registers of a sample disagree: sp %llx and %llx, fp %llx and %llx", at->sp, at->regs[REG_SP],
			     at->fp, at->regs[REG_FP]);
	}
	int reading = INSIDE(first, read_text), computing = INSIDE(first, leaf_text);
	/* the work is sampled, not the clock that it looks at */
	if (!reading && !computing)
		return 0;
	c->samples++;
	c->in_kernel += s->kernel_frames > 0;
	c->leaf += n ? frames[0] >> 63 : 1;
	c->ends[s->end]++;
	for (int i = 1; i < n; i++) {
		u64 pc = (frames[i] & mask) - 1;
		int wanted = callers == 0 ? INSIDE(pc, middle_text) : callers == 1 && INSIDE(pc, outer_text);

		c->guessed += frames[i] >> 62 & 1;
		callers += wanted;
	}
	c->callers += callers == 2;
	c->complete += s->end == END_COMPLETE || s->end == END_FRAME_POINTER_ZERO;
	/* leaf, handler, [sigreturn], whoever was interrupted in raise, ..., outer */
	int seen = 0;
	for (int i = 1; i < n; i++) {
		u64 pc = (frames[i] & mask) - 1;

		seen += seen == 0 ? INSIDE(pc, handler_text) : seen == 1 ? frames[i] >> 63 : seen == 2 && INSIDE(pc, outer_text);
	}
	c->signals += seen == 3;
	if (!c->odd[0] && n && callers < 2 && seen < 3) {
		int at = snprintf(c->odd, sizeof(c->odd), "end %d:", s->end);

		for (int i = 0; i < n && i < 40; i++)
			at += snprintf(c->odd + at, sizeof(c->odd) - at, " %llx", (unsigned long long)frames[i]);
	}
	return 0;
}

/* The object, loaded and attached to the clocks. */
struct loaded {
	struct bpf_object *object;
	struct ring_buffer *ring;
	struct bpf_link *links[MAX_CPUS];
	struct counts counts;
};

static struct bpf_map *map(struct loaded *l, const char *name)
{
	struct bpf_map *map = bpf_object__find_map_by_name(l->object, name);

	if (!map)
		fail("the object has no map %s", name);
	return map;
}

/* Sets a constant of .rodata by its place in the object's BTF. */
static void set_constant(struct loaded *l, const char *name, u32 value)
{
	const struct btf *btf = bpf_object__btf(l->object);
	int id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	const struct btf_type *section = btf__type_by_id(btf, id);
	struct btf_var_secinfo *variable = btf_var_secinfos(section);
	size_t bytes;
	void *values = NULL;
	struct bpf_map *map;

	bpf_object__for_each_map(map, l->object) {
		if (strstr(bpf_map__name(map), ".rodata"))
			values = (void *)bpf_map__initial_value(map, &bytes);
	}
	for (int i = 0; values && i < btf_vlen(section); i++) {
		const char *found = btf__name_by_offset(btf, btf__type_by_id(btf, variable[i].type)->name_off);

		if (!strcmp(found, name)) {
			memcpy(values + variable[i].offset, &value, sizeof(value));
			return;
		}
	}
	fail("the object has no constant %s", name);
}

/* What a tick of a CPU's clock is worth, behind the counters in its scratch memory. */
static void set_period(struct loaded *l, int cpus)
{
	struct bpf_map *scratches = map(l, "scratches");
	u32 bytes = bpf_map__value_size(scratches);
	u64 *scratch = calloc(1, bytes);

	if (!scratch)
		fail("no memory for scratch of %u bytes", bytes);
	scratch[COUNT_MAX] = 1000000000 / HERTZ;
	for (int cpu = 0; cpu < cpus; cpu++)
		if (bpf_map_update_elem(bpf_map__fd(scratches), &cpu, scratch, BPF_ANY))
			fail("cannot write to scratches: %s", strerror(errno));
	free(scratch);
}

static u32 verified(struct bpf_program *program)
{
	struct bpf_prog_info info = {};
	u32 bytes = sizeof(info);

	if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &bytes))
		fail("the kernel tells nothing of a program: %s", strerror(errno));
	return info.verified_insns;
}

/* Programs that run by system call are new in 5.14, bpf_task_pt_regs in 5.15. */
static int kernel_is(int major, int minor)
{
	struct utsname name;
	int a = 0, b = 0;

	uname(&name);
	sscanf(name.release, "%d.%d", &a, &b);
	return a > major || (a == major && b >= minor);
}

static void load(struct loaded *l, const char *path, int by_helper)
{
	int cpus = libbpf_num_possible_cpus();

	memset(l, 0, sizeof(*l));
	l->object = bpf_object__open_file(path, NULL);
	if (!l->object)
		fail("cannot open %s: %s", path, strerror(errno));
	if (!by_helper)
		set_constant(l, "use_task_pt_regs", 0);
	if (!kernel_is(5, 14))
		bpf_program__set_autoload(bpf_object__find_program_by_name(l->object, "test_unwind"), false);
	bpf_map__set_max_entries(map(l, "scratches"), cpus);
	if (bpf_object__load(l->object))
		fail("the kernel does not load the programs: %s", strerror(errno));
	set_period(l, cpus);
	l->ring = ring_buffer__new(bpf_map__fd(map(l, "samples")), on_sample, &l->counts, NULL);
	if (!l->ring)
		fail("cannot read the ring: %s", strerror(errno));
}

static void start(struct loaded *l)
{
	struct perf_event_attr clock = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(clock),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = 1000000000 / HERTZ,
		.exclude_idle = 1,
	};
	struct bpf_program *program = bpf_object__find_program_by_name(l->object, "sample_cpu");

	for (int cpu = 0; cpu < libbpf_num_possible_cpus() && cpu < MAX_CPUS; cpu++) {
		int event = syscall(SYS_perf_event_open, &clock, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

		if (event < 0)
			fail("cannot open a clock on CPU %d: %s", cpu, strerror(errno));
		l->links[cpu] = bpf_program__attach_perf_event(program, event);
		if (!l->links[cpu])
			fail("cannot attach to CPU %d: %s", cpu, strerror(errno));
	}
}

static void finish(struct loaded *l)
{
	for (int cpu = 0; cpu < MAX_CPUS; cpu++)
		bpf_link__destroy(l->links[cpu]);
	ring_buffer__free(l->ring);
	bpf_object__close(l->object);
}

/* Works for a second and reads what was sampled. */
static struct counts *run(struct loaded *l, enum work kind)
{
	memset(&l->counts, 0, sizeof(l->counts));
	work = kind;
	for (int i = 0; i < 10; i++) {
		outer(100);
		ring_buffer__consume(l->ring);
	}
	if (l->counts.samples < HERTZ / 4)
		fail("%llu samples of one second at %d Hz", (unsigned long long)l->counts.samples, HERTZ);
	return &l->counts;
}

static void put(struct loaded *l, const char *name, const void *key, const void *value)
{
	if (bpf_map_update_elem(bpf_map__fd(map(l, name)), key, value, BPF_ANY))
		fail("cannot write to %s: %s", name, strerror(errno));
}

/* Where the address space of this process begins and its stack: fields 26 and 28 of /proc/self/stat. */
static void address_space(struct process *p)
{
	char text[2048] = "", *at;
	int fd = open("/proc/self/stat", O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		fail("cannot read /proc/self/stat: %s", strerror(errno));
	close(fd);
	at = strrchr(text, ')') + 1;
	for (int field = 3; field <= 28; field++) {
		at = strchr(at, ' ') + 1;
		if (field == 26)
			p->start_code = strtoull(at, NULL, 10);
		if (field == 28)
			p->start_stack = strtoull(at, NULL, 10);
	}
}

/* The mapping of this program's code. */
static void own_code(u64 *start, u64 *end)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long long from, to;
	char line[512], kind[5];

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%llx-%llx %4s", &from, &to, kind) == 3 && kind[2] == 'x' && from <= (u64)leaf && (u64)leaf < to) {
			*start = from;
			*end = to;
			fclose(maps);
			return;
		}
	}
	fail("this program's code is not in /proc/self/maps");
}

/*
 * The tables: leaves have their caller in x30, the handler's frame is measured, everything else here keeps frame records. The
 * vdso, of which nothing else is ever on a stack, holds the return from signals.
 */
enum { RULE_LEAF = 1, RULE_RECORD, RULE_HANDLER, RULE_SIGNAL, RULE_COUNT };

static void publish(struct loaded *l)
{
	s16 record = handler_frame / 8;
	struct unwind_rule rules[RULE_COUNT] = {
		[RULE_LEAF] = { .cfa_kind = CFA_REG, .cfa_reg = REG_SP, .ra_kind = RA_REGISTER, .ra = REG_LR,
				.fp_off8 = SAVED_SAME, .rbx_off8 = SAVED_SAME },
		[RULE_RECORD] = { .cfa_kind = CFA_FRAME_POINTER },
		[RULE_HANDLER] = { .cfa_kind = CFA_REG, .cfa_reg = REG_FP, .cfa_off = handler_frame, .ra = 1 - record,
				   .fp_off8 = -record, .rbx_off8 = SAVED_SAME },
		[RULE_SIGNAL] = { .cfa_kind = CFA_SIGNAL, .cfa_off = SIGNAL_REGS },
	};
	/* where the rule changes, by address */
	struct { u64 at; u16 rule; } changes[] = {
		{ (u64)__start_leaf_text, RULE_LEAF }, { (u64)__stop_leaf_text, RULE_RECORD },
		{ (u64)__start_read_text, RULE_LEAF }, { (u64)__stop_read_text, RULE_RECORD },
		{ (u64)__start_handler_text, RULE_HANDLER }, { (u64)__stop_handler_text, RULE_RECORD },
	};
	const int change_count = sizeof(changes) / sizeof(changes[0]);
	u64 vdso = getauxval(AT_SYSINFO_EHDR), start, end;
	u32 zero = 0, rows[1024], count = 0, pid = getpid();
	LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
	int slab = bpf_map_create(BPF_MAP_TYPE_ARRAY, "slab", 4, 8, SLAB_ROWS / 2, &options);
	struct process process = { .version = 1, .first = 0, .count = 2 };

	if (slab < 0)
		fail("cannot make a slab: %s", strerror(errno));
	own_code(&start, &end);
	u64 base = start & ~0xffffull;
	u32 pages = ((end - base) >> 16) + 1;
	for (int i = 0; i < change_count; i++)
		for (int j = i + 1; j < change_count; j++)
			if (changes[j].at < changes[i].at || (changes[j].at == changes[i].at && changes[j].rule == RULE_RECORD)) {
				typeof(changes[0]) swap = changes[i];
				changes[i] = changes[j];
				changes[j] = swap;
			}
	for (u32 page = 0; page <= pages; page++) {
		u32 first = count;
		u64 from = base + ((u64)page << 16);
		u16 rule = page == pages ? RULE_SIGNAL : RULE_RECORD;

		for (int i = 0; page < pages && i < change_count; i++)
			if (changes[i].at <= from)
				rule = changes[i].rule;
		rows[count++] = (u32)rule << 16;
		for (int i = 0; page < pages && i < change_count; i++)
			if (changes[i].at > from && changes[i].at < from + 0x10000)
				rows[count++] = (u32)changes[i].rule << 16 | (u32)(changes[i].at & 0xffff);
		struct row_page entry = { .first = first, .count = count - first };
		put(l, "row_pages", &page, &entry);
	}
	for (u32 i = 0; i < (count + 1) / 2; i++) {
		u64 pair = rows[2 * i] | (u64)rows[2 * i + 1] << 32;

		if (bpf_map_update_elem(slab, &i, &pair, BPF_ANY))
			fail("cannot write rows: %s", strerror(errno));
	}
	put(l, "slabs", &zero, &slab);
	for (u32 i = 0; i < RULE_COUNT; i++)
		put(l, "rules", &i, &rules[i]);

	struct executable executables[] = {
		{ .page_count = pages, .page_base = 0 },
		{ .page_count = 1, .page_base = pages },
	};
	struct mapping mappings[] = {
		{ .start = start, .end = end, .bias = base, .executable = 0 },
		{ .start = vdso, .end = vdso + 0x2000, .bias = vdso, .executable = 1 },
	};
	for (u32 i = 0; i < 2; i++) {
		put(l, "executables", &i, &executables[i]);
		put(l, "mappings", &i, &mappings[i]);
	}
	address_space(&process);
	put(l, "processes", &pid, &process);
}

static void require(const struct counts *c, const char *what, u64 of)
{
	if (of * 100 >= c->samples * 99)
		return;
	fprintf(stderr, "ends:");
	for (int i = 0; i < 256; i++)
		if (c->ends[i])
			fprintf(stderr, " %d: %u,", i, c->ends[i]);
	fail(" %s: %llu of %llu samples; %s", what, (unsigned long long)of, (unsigned long long)c->samples, c->odd);
}

static void tell(const char *feature, const struct counts *c, const char *found)
{
	printf("%s\t%s (%llu samples)\n", feature, found, (unsigned long long)c->samples);
}

int main(int argc, char **argv)
{
	static struct loaded l;
	const char *names[] = { "sample_cpu", "follow_fork", "forget_exit" };
	struct counts *c;

	if (argc != 2)
		fail("usage: %s OBJECT", argv[0]);
	zeros = open("/dev/zero", O_RDONLY);
	signal(SIGUSR1, handler);
	raise(SIGUSR1); /* measures its frame */
	load(&l, argv[1], 1);
	printf("Loads\tyes, by a loader in C\nVerifier instructions\t");
	for (int i = 0; i < 3; i++) {
		struct bpf_program *program = bpf_object__find_program_by_name(l.object, names[i]);

		u32 count = program ? verified(program) : 0;
		if (count > MAX_INSTRUCTIONS)
			fail("the verifier walks through %u instructions of %s", count, names[i]);
		if (count)
			printf("%s%s %u", i ? ", " : "", names[i], count);
		else if (!i)
			printf("not told");
	}
	printf("\n");
	start(&l);

	c = run(&l, COMPUTE);
	require(c, "no copy of the stack", c->copied);
	tell("A process that is not known yet", c, "registers and a copy of its stack");
	publish(&l);
	ring_buffer__consume(l.ring);
	c = run(&l, COMPUTE);
	require(c, "callers through x30 and frame records", c->callers);
	require(c, "not to the root", c->complete);
	tell("Leaf's caller from x30, others from frame records", c, "to the root");
	c = run(&l, READ);
	require(c, "callers of a system call", c->callers);
	if (c->in_kernel * 10 < c->samples * 8)
		fail("%llu of %llu samples of reads are in the kernel", (unsigned long long)c->in_kernel, (unsigned long long)c->samples);
	tell("User registers in system calls", c, kernel_is(5, 15) ? "bpf_task_pt_regs" : "top of the kernel stack");
	c = run(&l, SIGNALS);
	require(c, "through a signal", c->signals);
	tell("Through a signal's frame", c, "to the interrupted function and on");
	finish(&l);
	if (!kernel_is(5, 15))
		return 0;

	load(&l, argv[1], 0);
	publish(&l);
	start(&l);
	c = run(&l, READ);
	require(c, "callers of a system call, by arithmetic", c->callers);
	tell("The same, forced to the top of the kernel stack", c, "to the root");
	finish(&l);
	return 0;
}
