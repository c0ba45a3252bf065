/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * One program for each event of a source (sources.h): choose, take the kernel's stack, unwind the user's, hand one record to the
 * source's ring.
 *
 * The unwinder is a loop over one global function: the verifier checks a global function once, whatever the number of
 * calls, so 1,024 frames load on every kernel from 5.10 on with neither tail calls nor bpf_loop.
 */
#include "vmlinux_min.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "maps.h"

#define SEEN_FRAMES 256 /* a power of two */

struct scratch {
	/* what user space reads and writes: sampler.rs */
	u64 counters[COUNT_MAX];
	u64 period; /* of a clock, ns; changes only while the clock stands still. Of what is counted: events from sample to sample */
	u64 gap; /* of what is counted: ns from sample to sample; 0: as many events as `period` says */
	u64 busy; /* 1: in use */
	u64 ruled_out[RULE_LANES]; /* COUNT_RULED_OUT, by whose rule */
	/* the rest is the programs' own */
	u64 woken; /* when this CPU last woke the reader for want of room */
	u64 hits; /* of what is counted, since its last sample */
	u64 sampled_at;
	u64 timer; /* of a clock, as `expired` said when its program ran */
	u64 expired; /* the timer that expired last on this CPU */
	u64 tick_due; /* 1: the clock ticked and its program did not run yet */
	u64 tick_ids; /* the task that the tick met */
	struct unwind_state state;
	u32 kernel_frames;
	u32 pad;
	u64 window_at; /* user address of window[0]; WINDOW_EMPTY before the first */
	u64 window[WINDOW_WORDS];
	u64 runtime[RUNTIME_WORDS];
	u32 news; /* 1: this sample has a runtime's frame that was not seen on this CPU lately, whose name may soon be gone */
	u32 refused; /* enum refusal, of this sample */
	u32 seen[SEEN_FRAMES]; /* cookies */
	struct pc_cache_entry pc_cache[PC_CACHE_SLOTS];
	struct sample sample; /* the record starts here */
	u64 body[BODY_BYTES / 8];
};
_Static_assert(sizeof(struct scratch) % 8 == 0, "sampler.rs counts in words");
/* PERIOD, BUSY and RULED_OUT of sampler.rs, in words */
AT(scratch, counters, 0);
AT(scratch, period, COUNT_MAX * 8);
AT(scratch, gap, (COUNT_MAX + 1) * 8);
AT(scratch, busy, (COUNT_MAX + 2) * 8);
AT(scratch, ruled_out, (COUNT_MAX + 3) * 8);
/* where the Rust side, which is x86-64, looks */
_Static_assert(LEAF_REGS != 16 || __builtin_offsetof(struct scratch, body) == 36056, "prog_test.rs reads the frames there");

typedef struct scratch *unwind_context;
typedef void row_slab; /* an inner map */

static __always_inline u64 opaque(u64 x)
{
	asm volatile("" : "+r"(x));
	return x;
}

static __always_inline long read_user(struct scratch *s, void *dst, u32 len, u64 address)
{
	return bpf_probe_read_user(dst, len, (const void *)address);
}

static __always_inline struct mapping *get_mapping(struct scratch *s, u32 i)
{
	return bpf_map_lookup_elem(&mappings, &i);
}

static __always_inline struct executable *get_executable(struct scratch *s, u32 i)
{
	return bpf_map_lookup_elem(&executables, &i);
}

static __always_inline struct row_page *get_row_page(struct scratch *s, u32 i)
{
	return bpf_map_lookup_elem(&row_pages, &i);
}

static __always_inline struct unwind_rule *get_rule(struct scratch *s, u32 i)
{
	return bpf_map_lookup_elem(&rules, &i);
}

static __always_inline row_slab *get_slab(struct scratch *s, u32 i)
{
	return bpf_map_lookup_elem(&slabs, &i);
}

/* Two rows lie in one element. */
static __always_inline int get_row(row_slab *slab, u32 i, u32 *row)
{
	u32 element = i >> 1;
	u64 *pair = bpf_map_lookup_elem(slab, &element);

	if (!pair)
		return -1;
	*row = (u32)(*pair >> (i & 1) * 32);
	return 0;
}

/*
 * Return addresses lie at rising addresses, most frames are small, and a read of user memory costs more by the call than by
 * the byte: read some words ahead, and serve the next frames from them.
 */
#define WINDOW_EMPTY (~0ull)
static __always_inline int read_stack(struct scratch *s, u64 *dst, const u32 words, u64 address)
{
	u64 offset = address - s->window_at;

	if (offset > (WINDOW_WORDS - 2) * 8 || offset & 7) {
		if (bpf_probe_read_user(s->window, sizeof(s->window), (void *)address)) {
			/* too near the stack's end */
			s->window_at = WINDOW_EMPTY;
			return bpf_probe_read_user(dst, words * 8, (void *)address) ? -1 : 0;
		}
		s->window_at = address;
		offset = 0;
	}
	offset = opaque(offset / 8 & (WINDOW_WORDS - 1));
	if (offset > WINDOW_WORDS - 2)
		return -1;
	dst[0] = s->window[offset];
	if (words == 2)
		dst[1] = s->window[offset + 1];
	return 0;
}

/* The window: on arm64 these words are half of the stack that all calls together have. */
static __always_inline u64 *signal_room(struct scratch *s)
{
	_Static_assert(SIGNAL_WORDS <= WINDOW_WORDS, "they fit into the window");
	s->window_at = WINDOW_EMPTY;
	return s->window;
}

static __always_inline u64 *runtime_room(struct scratch *s)
{
	return s->runtime;
}

static __always_inline int write_frame(struct scratch *s, const u32 words, u64 first, u64 second)
{
	struct unwind_state *u = &s->state;
	u32 n = u->frames;

	if (n + words > MAX_USER_WORDS || u->depth >= MAX_USER_FRAMES)
		return END_TOO_DEEP;
	u64 slot = opaque(s->kernel_frames + n);
	if (slot >= MAX_FRAMES)
		return END_TOO_DEEP;
	s->body[slot] = first;
	if (words == 2) {
		u32 cookie = second >> 32;
		u32 *seen = &s->seen[cookie >> 8 & (SEEN_FRAMES - 1)];

		s->body[slot + 1] = second;
		if (*seen != cookie) {
			*seen = cookie;
			s->news = 1;
		}
	}
	u->frames = n + words;
	u->depth++;
	return 0;
}

static __always_inline u64 thread_pointer(struct scratch *s);

#include "unwind.h"
#include "runtimes.h"

/*
 * One for each CPU and source: the values are larger than a per-CPU map allows. A source's program is not interrupted by itself, but
 * a program of another source may be; where it happens all the same, `busy` refuses the second.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* CPUs times sources, set at load */
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

#include "sources.h"

enum target_mode {
	TARGET_ALL = 0,
	TARGET_PROCESSES = 1,
	TARGET_CGROUP = 2,
	TARGET_RULES = 3,
};

/* Set before load. */
const volatile u32 target_mode = TARGET_ALL;
const volatile u32 kernel_btf = 1; /* 0: the verifier knows no type of this kernel, and refuses helpers that return one */
const volatile u32 use_task_pt_regs = 1; /* 0 forces the arithmetic on task->stack, for tests */
const volatile u32 thread_size = 16384; /* bytes of a kernel stack, for the same */
const volatile u32 copy_stacks = 1;

/* Changes live. */
volatile u32 rules_active = 0; /* with TARGET_RULES: there are rules */
volatile u64 min_age = 0; /* with rules: ns from a process's start to its first sample */

#define PF_IO_WORKER 0x00000010
#define PF_USER_WORKER 0x00004000
#define PF_KTHREAD 0x00200000

/* What the task keeps is the thread's own unless it changes it without the kernel (wrfsbase), which C libraries do not. */
static __always_inline u64 thread_pointer(struct scratch *s)
{
	struct unwind_state *u = &s->state;

	if (u->thread_pointer)
		return u->thread_pointer;
	if (kernel_btf && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf))
		u->thread_pointer = bpf_get_current_task_btf()->THREAD_POINTER;
	else
		u->thread_pointer = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), THREAD_POINTER);
	return u->thread_pointer;
}

/* The global functions: each is verified once, whatever the number of calls. They return enum unwind_end. */
__noinline int search_rule(u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);

	if (!s)
		return END_BAD_FRAME;
	s->state.rule = find_rule(s, s->state.leaf ? s->state.ip : s->state.ip - 1);
	return 0;
}

/* The steps of runtimes, for the instance that this frame's mapping names. */
__noinline int step_cpython(u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);

	if (!s)
		return END_BAD_FRAME;
	u32 index = UNWINDER_INSTANCE(s->state.unwinder);
	const struct instance *instance = bpf_map_lookup_elem(&instances, &index);

	return instance ? step_python(s, (const struct python_instance *)instance) : STEP_NATIVE;
}

__noinline int step_javascript(u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);

	if (!s)
		return END_BAD_FRAME;
	u32 index = UNWINDER_INSTANCE(s->state.unwinder);
	const struct instance *instance = bpf_map_lookup_elem(&instances, &index);

	return instance ? step_v8(s, (const struct v8_instance *)instance) : STEP_NATIVE;
}

#ifdef HOTSPOT_PARTS
static __always_inline const struct hotspot_instance *hotspot_of(struct scratch *s)
{
	u32 index = UNWINDER_INSTANCE(s->state.unwinder);

	return bpf_map_lookup_elem(&instances, &index);
}

#define HOTSPOT_PART(name, part)                                                           \
	__noinline int name(u32 slot)                                                      \
	{                                                                                  \
		struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);                \
		const struct hotspot_instance *h = s ? hotspot_of(s) : 0;                  \
                                                                                           \
		return s && h ? part(s, h) : END_BAD_FRAME;                                \
	}

HOTSPOT_PART(locate_java, hotspot_locate)
HOTSPOT_PART(step_interpreted, hotspot_interpreted)
HOTSPOT_PART(step_method, hotspot_method)
HOTSPOT_PART(step_method_leaf, hotspot_method_leaf)
HOTSPOT_PART(step_stub, hotspot_stub)
HOTSPOT_PART(step_stub_leaf, hotspot_stub_leaf)

__noinline int find_phase(u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);

	if (!s)
		return END_BAD_FRAME;
	hotspot_room(s)->phase = hotspot_phase(s);
	return 0;
}

static __always_inline int step_hotspot(u32 slot)
{
	int part = locate_java(slot);

	if (part == HOTSPOT_PART_INTERPRETED)
		return step_interpreted(slot);
	if (part == HOTSPOT_PART_METHOD)
		return step_method(slot);
	if (part == HOTSPOT_PART_METHOD_LEAF) {
		find_phase(slot);
		return step_method_leaf(slot);
	}
	if (part == HOTSPOT_PART_STUB)
		return step_stub(slot);
	if (part == HOTSPOT_PART_STUB_LEAF)
		return step_stub_leaf(slot);
	return part;
}
#else
/* Not written for this architecture: its frames are followed as any other code without rows. */
static __always_inline int step_hotspot(u32 slot)
{
	return STEP_NATIVE;
}
#endif

/* A frame in code of a runtime. */
static __always_inline int step_runtime(u32 slot, u32 unwinder)
{
	if (UNWINDER_KIND(unwinder) == FRAME_CPYTHON)
		return step_cpython(slot);
	if (UNWINDER_KIND(unwinder) == FRAME_HOTSPOT)
		return step_hotspot(slot);
	if (UNWINDER_KIND(unwinder) == FRAME_V8)
		return step_javascript(slot);
	return STEP_NATIVE;
}

/* One frame: written down, then stepped from. */
static __always_inline int unwind_frame(struct scratch *s, u32 number)
{
	struct unwind_state *u = &s->state;
	u64 pc = u->leaf ? u->ip : u->ip - 1;
	struct pc_cache_entry *c = &s->pc_cache[(pc ^ pc >> 10 ^ (u64)u->version * 0x9e3779b1u) & (PC_CACHE_SLOTS - 1)];

	if (c->pc != pc || c->version != u->version) {
		s->counters[COUNT_RULE_SEARCHES]++;
		search_rule(number);
		if (u->rule == RULE_NO_MAPPING)
			return END_NO_MAPPING;
		if (u->rule == RULE_NOT_LOADED)
			return END_NOT_LOADED;
		struct unwind_rule *r = get_rule(s, u->rule);
		if (!r)
			return END_BAD_FRAME;
		c->pc = pc;
		c->version = u->version;
		c->unwinder = u->unwinder;
		c->rule = *r;
	}

	int step = STEP_NATIVE;
	if (c->unwinder) {
		u->unwinder = c->unwinder;
		step = step_runtime(number, c->unwinder);
		if (step == STEP_AGAIN)
			return END_RUNNING;
		if (step != STEP_RULE && step != STEP_NATIVE)
			return step;
	}
	if (step == STEP_NATIVE && write_native(s))
		return END_TOO_DEEP;
	return step_rule(s, &c->rule);
}

__noinline int unwind_frames(u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);
	int end = END_BAD_FRAME;

	if (!s)
		return end;
#pragma clang loop unroll(disable)
	for (int i = 0; i < FRAMES_A_CALL; i++) {
		end = unwind_frame(s, slot);
		if (end != END_RUNNING)
			break;
	}
	return end;
}

/* The stack from sp upwards, as far as it can be read, behind the frames. Returns its bytes. */
__noinline int copy_stack(u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);

	if (!s)
		return 0;
	struct unwind_state *u = &s->state;
	u64 words = opaque(s->kernel_frames + u->frames);
	if (words > MAX_FRAMES)
		return 0;

	/* saved registers may lie below sp, outside the copy: fetch them now */
	if (load_fp(s) || load_rbx(s))
		return 0;
	struct continuation *c = (void *)&s->body[words];
	c->ip = u->ip;
	c->sp = u->sp;
	c->fp = u->fp;
	c->rbx = u->rbx;
	c->leaf = u->leaf;
	c->guessed = u->guessed;
	c->thread_pointer = thread_pointer(s);
	c->cursor = u->cursor;
	c->begun = u->begun;
	c->depth = u->depth;
	for (int i = 0; i < LEAF_REGS; i++)
		c->regs[i] = u->regs[i];

	char *copy = (char *)(c + 1);
	u64 from = u->sp;
	u64 first = opaque(PAGE_BYTES - (from & (PAGE_BYTES - 1)));
	u64 copied;

	if (first > PAGE_BYTES || bpf_probe_read_user(copy, first, (void *)from))
		return 0;
	copied = first;
	for (int i = 0; i < STACK_COPY_PAGES - 1; i++) {
		copied = opaque(copied);
		if (copied > (STACK_COPY_PAGES - 1) * PAGE_BYTES)
			break;
		if (bpf_probe_read_user(copy + copied, PAGE_BYTES, (void *)(from + copied)))
			break;
		copied += PAGE_BYTES;
	}
	return copied;
}

/* Unwinds from the registers in the scratch's state: frames into its body. Returns enum unwind_end. */
static __always_inline int unwind_user(struct scratch *s, u32 slot)
{
	int end = END_TOO_DEEP;

	s->window_at = WINDOW_EMPTY;

#pragma clang loop unroll(disable)
	for (int i = 0; i <= MAX_USER_FRAMES / FRAMES_A_CALL; i++) {
		end = unwind_frames(slot);
		if (end != END_RUNNING)
			break;
	}
	return end == END_RUNNING ? END_TOO_DEEP : end;
}

static __always_inline void set_leaf(struct unwind_state *u)
{
	u->leaf = 1;
	u->guessed = 0;
	u->fp_at = 0;
	u->rbx_at = 0;
	u->frames = 0;
	u->depth = 0;
	u->thread_pointer = 0;
	u->cursor = 0;
	u->begun = 0;
	u->inside = 0;
}

/* The registers with which the task last left user space. */
static __always_inline int user_registers(struct bpf_perf_event_data *ctx, const int in_user, struct scratch *s,
					  struct task_struct *task)
{
	struct unwind_state *u = &s->state;

	if (in_user) {
		if (is_compat(&ctx->regs))
			return END_COMPAT;
		take_registers(u, &ctx->regs);
		/* or the compiler merges this with the copies below, behind a pointer into the context that verifiers refuse */
		asm volatile("" ::: "memory");
		return 0;
	}
	if (kernel_btf && use_task_pt_regs && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		bpf_user_pt_regs_t *r = (bpf_user_pt_regs_t *)bpf_task_pt_regs(bpf_get_current_task_btf());

		if (is_compat(r))
			return END_COMPAT;
		if (!from_user(r))
			return END_NO_USER_STACK;
		take_registers(u, r);
		return 0;
	}
	/* Into the window, which is still empty: all calls together have 512 bytes of stack, less than these leave over. */
	bpf_user_pt_regs_t *r = (bpf_user_pt_regs_t *)s->window;
	u64 top = (u64)BPF_CORE_READ(task, stack) + thread_size - PT_REGS_BYTES;

	_Static_assert(sizeof(*r) <= sizeof(s->window), "the registers fit into the window");
	if (bpf_probe_read_kernel(r, sizeof(*r), (void *)top))
		return END_NO_USER_STACK;
	if (!is_entry(r) && bpf_probe_read_kernel(r, sizeof(*r), (void *)(top - STACK_PADDING)))
		return END_NO_USER_STACK;
	if (is_compat(r))
		return END_COMPAT;
	if (!from_user(r))
		return END_NO_USER_STACK;
	take_registers(u, r);
	return 0;
}

/* The mappings of this address space: the process's own, or its parent's as long as it has not exec'd. */
static __always_inline struct process *find_process(const struct sample *sample)
{
	u32 pid = sample->pid;
	struct process *p = bpf_map_lookup_elem(&processes, &pid);

	if (p && p->start_stack == sample->start_stack && p->start_code == sample->start_code)
		return p;
	pid = sample->parent_pid;
	p = bpf_map_lookup_elem(&processes, &pid);
	if (p && p->start_stack == sample->start_stack && p->start_code == sample->start_code)
		return p;
	return 0;
}

static __always_inline int chosen(u32 pid)
{
	if (target_mode == TARGET_PROCESSES)
		return bpf_map_lookup_elem(&target_processes, &pid) != 0;
	if (target_mode == TARGET_CGROUP)
		return bpf_current_task_under_cgroup(&target_cgroup, 0) == 1;
	return 1;
}

/* enum refusal, as far as user space has told what is decided of this image. What is new is sampled, and told. */
static __always_inline u32 refused(struct sample *sample)
{
	u32 pid = sample->pid;

	sample->cgroup = bpf_get_current_cgroup_id();
	if (min_age && bpf_ktime_get_boot_ns() - sample->start_time < min_age)
		return REFUSED_BY_TARGETS;
	struct verdict *v = bpf_map_lookup_elem(&verdicts, &pid);

	if (!v || v->start_time != sample->start_time || v->cgroup != sample->cgroup)
		return REFUSED_NOT;
	/* a thread that exits has no address space any more, and is of the process that was judged all the same */
	if ((sample->start_stack || sample->start_code) &&
	    (v->start_stack != sample->start_stack || v->start_code != sample->start_code))
		return REFUSED_NOT;
	return v->refused;
}

static __always_inline int user_stack(struct bpf_perf_event_data *ctx, const int in_user, struct scratch *s, u32 slot, u32 flags,
				      struct task_struct *task)
{
	struct unwind_state *u = &s->state;
	int end;

	if (flags & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER))
		return END_NO_USER_STACK;
	end = user_registers(ctx, in_user, s, task);
	if (end)
		return end;
	set_leaf(u);
	struct process *p = find_process(&s->sample);
	if (!p)
		return END_UNKNOWN_PROCESS;
	u->version = p->version;
	u->first_mapping = p->first;
	u->mapping_count = p->count;
	s->sample.version = p->version;
	return unwind_user(s, slot);
}

/* What interrupted the present task, if that is in its registers: a tracepoint's context has none. */
enum context {
	CONTEXT_REGISTERS,
	CONTEXT_TRACEPOINT,
};

/* The record of the present task, in its slot's scratch. Returns its bytes; 0: this process is not to be sampled. */
static __always_inline u64 record(struct bpf_perf_event_data *ctx, const enum context kind, struct scratch *s, u32 slot, u64 ids,
				  u64 value)
{
	struct sample *sample = &s->sample;
	const int in_user = kind == CONTEXT_REGISTERS && from_user(&ctx->regs);
	struct task_struct *task;
	u32 flags;

	sample->time = bpf_ktime_get_ns();
	sample->value = value;
	sample->cgroup = 0;
	sample->pid = ids >> 32;
	sample->tid = (u32)ids;
	sample->cpu = bpf_get_smp_processor_id();
	sample->version = 0;
	sample->stack_bytes = 0;
	if (kernel_btf && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf)) {
		task = bpf_get_current_task_btf();
		struct mm_struct *mm = task->mm;

		flags = task->flags;
		sample->start_time = task->group_leader->start_boottime;
		sample->parent_pid = task->real_parent->tgid;
		sample->start_code = mm ? mm->start_code : 0;
		sample->start_stack = mm ? mm->start_stack : 0;
	} else {
		task = (struct task_struct *)bpf_get_current_task();
		flags = BPF_CORE_READ(task, flags);
		sample->start_time = BPF_CORE_READ(task, group_leader, start_boottime);
		sample->parent_pid = BPF_CORE_READ(task, real_parent, tgid);
		sample->start_code = BPF_CORE_READ(task, mm, start_code);
		sample->start_stack = BPF_CORE_READ(task, mm, start_stack);
	}

	if (target_mode == TARGET_RULES && rules_active) {
		s->refused = refused(sample);
		if (s->refused != REFUSED_NOT) {
			count_refused(s, s->refused);
			return 0;
		}
	}
	bpf_get_current_comm(sample->comm, sizeof(sample->comm));

	s->kernel_frames = 0;
	s->state.frames = 0;
	s->state.depth = 0;
	s->news = 0;
	if (!in_user) {
		long bytes = bpf_get_stack(ctx, s->body, MAX_KERNEL_FRAMES * 8, 0);

		if (bytes > 0)
			s->kernel_frames = (u32)bytes / 8;
		else
			s->counters[COUNT_KERNEL_STACK_FAILED]++;
	}

	int end = user_stack(ctx, in_user, s, slot, flags, task);
	u32 stack_bytes = 0;
	if (copy_stacks && (end == END_UNKNOWN_PROCESS || end == END_NO_MAPPING || end == END_NOT_LOADED))
		stack_bytes = copy_stack(slot);
	/* in the kernel, and not even the top of the stack is there: an exec or exit is taking the address space down */
	if (!stack_bytes && end == END_UNKNOWN_PROCESS && s->kernel_frames)
		end = END_NO_USER_STACK;

	u32 kernel_frames = s->kernel_frames;
	u32 user_frames = s->state.frames;
	u64 size = sizeof(struct sample) + (kernel_frames + user_frames) * 8;
	if (stack_bytes)
		size += sizeof(struct continuation) + stack_bytes;
	sample->kernel_frames = kernel_frames;
	sample->user_frames = user_frames;
	sample->stack_bytes = stack_bytes;
	sample->end = end;
	s->counters[COUNT_FRAMES] += s->state.depth;
	return size;
}

static __always_inline int sample_event(struct bpf_perf_event_data *ctx, const enum context kind, const u32 source)
{
	u64 ids = bpf_get_current_pid_tgid();
	u32 pid = ids >> 32;
	u32 slot = slot_of(source);
	u64 value;

	if (!pid || !chosen(pid))
		return 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);
	if (!s)
		return 0;
	if (s->busy) {
		s->counters[COUNT_BUSY]++;
		return 0;
	}
	s->busy = 1;
	asm volatile("" ::: "memory");
	if (kind == CONTEXT_TRACEPOINT) {
		value = count_hit(s);
	} else if (is_clock(source)) {
		value = s->period;
		if (note_ticks) {
			s->timer = s->expired;
			s->tick_due = 0;
		}
	} else {
		value = s->gap ? count_hit(s) : ctx->sample_period;
	}
	if (value) {
		u64 size = record(ctx, kind, s, slot, ids, value);

		if (size)
			send(s, s, source, size);
		make_good(s, source, ids, size);
	} else {
		s->counters[COUNT_PASSED]++;
	}
	asm volatile("" ::: "memory");
	s->busy = 0;
	return 0;
}

/* A source's place is a constant of its program: not all kernels have cookies. Only those that are used are loaded. */
#define SAMPLE(section, name, kind, source)    \
	SEC(section)                           \
	int name(void *ctx)                    \
	{                                      \
		sample_event(ctx, kind, source); \
		return 0;                      \
	}

SAMPLE("perf_event", sample_cpu, CONTEXT_REGISTERS, 0)
SAMPLE("?perf_event", sample_event_1, CONTEXT_REGISTERS, 1)
SAMPLE("?perf_event", sample_event_2, CONTEXT_REGISTERS, 2)
SAMPLE("?perf_event", sample_event_3, CONTEXT_REGISTERS, 3)
SAMPLE("?perf_event", sample_event_4, CONTEXT_REGISTERS, 4)
SAMPLE("?perf_event", sample_event_5, CONTEXT_REGISTERS, 5)
SAMPLE("?perf_event", sample_event_6, CONTEXT_REGISTERS, 6)
SAMPLE("?perf_event", sample_event_7, CONTEXT_REGISTERS, 7)

/* 1: who else listens to this tracepoint goes on to hear it. */
#define SAMPLE_HIT(name, source)                                    \
	SEC("?tp")                                                  \
	int name(void *ctx)                                         \
	{                                                           \
		sample_event(ctx, CONTEXT_TRACEPOINT, source);      \
		return 1;                                           \
	}

SAMPLE_HIT(sample_hit_0, 0)
SAMPLE_HIT(sample_hit_1, 1)
SAMPLE_HIT(sample_hit_2, 2)
SAMPLE_HIT(sample_hit_3, 3)
SAMPLE_HIT(sample_hit_4, 4)
SAMPLE_HIT(sample_hit_5, 5)
SAMPLE_HIT(sample_hit_6, 6)
SAMPLE_HIT(sample_hit_7, 7)

/* A timer expires: if it is one of our clocks', its tick is due until its program runs, which is at once or not at all. */
SEC("?raw_tp/hrtimer_expire_entry")
int note_tick(struct bpf_raw_tracepoint_args *ctx)
{
	u64 timer = ctx->args[0];
	u64 ids = bpf_get_current_pid_tgid();
	u32 pid = ids >> 32;

#pragma clang loop unroll(full)
	for (u32 i = 0; i < MAX_SOURCES; i++) {
		if (!is_clock(i))
			continue;
		struct scratch *clock = scratch_of(i);
		if (!clock)
			continue;
		clock->expired = timer;
		if (timer != clock->timer)
			continue;
		if (clock->tick_due)
			clock->counters[COUNT_REFUSED]++;
		clock->tick_due = pid && chosen(pid);
		clock->tick_ids = ids;
	}
	return 0;
}

/* Children of a chosen process are chosen, from their first instruction. */
SEC("raw_tp/sched_process_fork")
int follow_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (struct task_struct *)ctx->args[0];
	struct task_struct *child = (struct task_struct *)ctx->args[1];
	u32 parent_pid = BPF_CORE_READ(parent, tgid);
	u32 child_pid = BPF_CORE_READ(child, tgid);
	u32 one = 1;

	if (child_pid != parent_pid && bpf_map_lookup_elem(&target_processes, &parent_pid))
		bpf_map_update_elem(&target_processes, &child_pid, &one, BPF_ANY);
	return 0;
}

/* A pid that has ended must not choose the next process that gets its number. */
SEC("raw_tp/sched_process_exit")
int forget_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	u32 pid = BPF_CORE_READ(task, tgid);

	/* the leader's end is not the process's: its last thread's is */
	if (BPF_CORE_READ(task, signal, live.counter) == 0)
		bpf_map_delete_elem(&target_processes, &pid);
	return 0;
}

/* The unwinder on chosen input, for tests: BPF_PROG_TEST_RUN, in the context of the test's own process. */
struct test_input {
	u64 ip, sp, fp, rbx;
	u32 version, first_mapping, mapping_count;
	u32 end; /* out */
	u32 frames; /* out */
	u32 pad;
	u64 thread_pointer;
	u64 regs[LEAF_REGS];
};
AT(test_input, ip, 0);
AT(test_input, sp, 8);
AT(test_input, fp, 16);
AT(test_input, rbx, 24);
AT(test_input, version, 32);
AT(test_input, first_mapping, 36);
AT(test_input, mapping_count, 40);
AT(test_input, end, 44);
AT(test_input, frames, 48);
AT(test_input, thread_pointer, 56);
AT(test_input, regs, 64);

SEC("syscall")
int test_unwind(struct test_input *in)
{
	u32 slot = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);

	if (!s)
		return 1;
	struct unwind_state *u = &s->state;
	set_leaf(u);
	u->ip = in->ip;
	u->sp = in->sp;
	u->fp = in->fp;
	u->rbx = in->rbx;
	u->version = in->version;
	u->first_mapping = in->first_mapping;
	u->mapping_count = in->mapping_count;
	u->thread_pointer = in->thread_pointer;
#pragma clang loop unroll(full)
	for (int i = 0; i < LEAF_REGS; i++)
		u->regs[i] = in->regs[i];
	s->kernel_frames = 0;
	in->end = unwind_user(s, slot);
	in->frames = u->frames;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
