/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the kernel half and user space share. The twin of `abi.rs` (rows and rules) and `record.rs` (samples, tables):
 * change both, the asserts on both sides hold you to it. Fields named rbx hold REG_BASE of arch.h.
 */
#ifndef PROFILER_ABI_H
#define PROFILER_ABI_H

#ifndef LEAF_REGS
#error "include arch.h, which knows the registers and includes this"
#endif

#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif

#define MAX_USER_FRAMES 1024
#define MAX_KERNEL_FRAMES 127
#define MAX_USER_WORDS 2048 /* of the user frames: a runtime's has two */
#define MAX_FRAMES 2176 /* words of both, rounded up */
#define STACK_COPY_PAGES 32
#define PAGE_BYTES 4096
#define PC_CACHE_SLOTS 1024 /* a power of two */
#define FRAMES_A_CALL 4 /* unwound by one call of unwind_frames */
#define RUNTIME_WORDS 80 /* that the step of a runtime has room for */
#define MAX_SOURCES 8 /* of samples, in one recording */
#define RULE_LANES 8 /* in which what rules drop is counted; a power of two */

#define MAX_PROCESSES 16384
#define MAX_MAPPINGS 65536
#define MAX_EXECUTABLES 8192
#define MAX_ROW_PAGES 65536
#define MAX_SLABS 1024
#define MAX_RULES 32768
#define MAX_INSTANCES 4096
#define INSTANCE_BYTES 256
#define SLAB_ROWS 65536
#define SLAB_ROWS_SHIFT 16
#define ROW_PAGE_SHIFT 16

/* Where a field is; its twin asserts the same. */
#define AT(type, field, offset) _Static_assert(__builtin_offsetof(struct type, field) == (offset), #type "." #field)

/* struct unwind_rule::cfa_kind */
enum cfa_kind {
	CFA_NONE = 0,
	CFA_REG = 1,
	CFA_DEREF = 2,
	CFA_PLT = 3,
	CFA_END = 4,
	CFA_SIGNAL = 5,
	CFA_FRAME_POINTER = 6,
};

/* struct unwind_rule::ra_kind */
enum ra_kind {
	RA_CFA_OFFSET = 0,
	RA_REGISTER = 1,
};

#define SAVED_SAME (-32768)
#define RULE_FP_AT_FP 1
#define RULE_RBX_AT_FP 2
#define RULE_SAVED_AT_POINTERS 4 /* fp_off8 and rbx_off8 are where pointers to the saved values are; with both others */

struct unwind_rule {
	u8 cfa_kind;
	u8 cfa_reg;
	u8 ra_kind;
	u8 flags;
	s32 cfa_off;
	s16 cfa_off2;
	s16 ra;
	s16 fp_off8;
	s16 rbx_off8;
};
_Static_assert(sizeof(struct unwind_rule) == 16, "unwind_rule");
AT(unwind_rule, cfa_kind, 0);
AT(unwind_rule, cfa_reg, 1);
AT(unwind_rule, ra_kind, 2);
AT(unwind_rule, flags, 3);
AT(unwind_rule, cfa_off, 4);
AT(unwind_rule, cfa_off2, 8);
AT(unwind_rule, ra, 10);
AT(unwind_rule, fp_off8, 12);
AT(unwind_rule, rbx_off8, 14);

/* Whose code a mapping is, and whose frame a word of a stack: six bits. */
enum frame_kind {
	FRAME_NATIVE = 0,
	FRAME_CPYTHON = 1,
	FRAME_HOTSPOT = 2,
	FRAME_V8 = 3,
	FRAME_KINDS = 64,
};

/* struct mapping::unwinder: whose code it is, and above that which instance knows the way, an index into `instances`. */
#define UNWINDER_KIND_BITS 8
#define UNWINDER_KIND(unwinder) ((unwinder) & 0xff)
#define UNWINDER_INSTANCE(unwinder) ((unwinder) >> UNWINDER_KIND_BITS)

/* What user space found out of a runtime in one address space: a runtime's own struct lies over it (python.h). */
struct instance {
	u64 words[INSTANCE_BYTES / 8];
};
_Static_assert(sizeof(struct instance) == INSTANCE_BYTES, "instance");

/*
 * A runtime's step, step_NAME(s, instance): from the frame in `s`, whose ip is in its code, to the next. END_RUNNING: it wrote down
 * what there is of this frame, and `s` is the caller's. Another enum unwind_end: there is no caller. Or one of these.
 */
enum runtime_step {
	STEP_AGAIN = 256, /* it wrote frames, and has more of this one: call it again */
	STEP_RULE = 257, /* it wrote down what there is of this frame; its caller is found by the native rule */
	STEP_NATIVE = 258, /* a frame as any other: to be written down, and its caller found by the native rule */
};

/* The object of a runtime's frame that stands for frames that could not be read; its position says why. */
#define NO_OBJECT 0

/* One executable mapping of a process; a process's are consecutive in `mappings`, sorted by start. */
struct mapping {
	u64 start; /* user address */
	u64 end; /* one past the last */
	u64 bias; /* user address - ELF virtual address */
	u32 executable; /* index into `executables`; NO_EXECUTABLE: code without rows, follow the frame pointer */
	u32 unwinder; /* enum frame_kind, and the instance's index << UNWINDER_KIND_BITS */
};
_Static_assert(sizeof(struct mapping) == 32, "mapping");
AT(mapping, start, 0);
AT(mapping, end, 8);
AT(mapping, bias, 16);
AT(mapping, executable, 24);
AT(mapping, unwinder, 28);
#define NO_EXECUTABLE 0xffffffffu

/* Where an executable's row pages are; `page_count` 0: not loaded yet. */
struct executable {
	u32 first_page; /* ELF virtual address >> 16 of pages[page_base] */
	u32 page_count;
	u32 page_base; /* index into `row_pages` */
	u32 pad;
};
_Static_assert(sizeof(struct executable) == 16, "executable");
AT(executable, first_page, 0);
AT(executable, page_count, 4);
AT(executable, page_base, 8);

/* The rows of 64 KiB of ELF address space; they never straddle two slabs. */
struct row_page {
	u32 first; /* slab << 16 | first row in the slab */
	u32 count;
};
_Static_assert(sizeof(struct row_page) == 8, "row_page");
AT(row_page, first, 0);
AT(row_page, count, 4);

/* A process whose mappings are known. Its address space is the one that has this start_code and start_stack: after an exec
 * the table stops to apply by itself, and a forked child that has not exec'd shares its parent's. */
struct process {
	u64 start_code;
	u64 start_stack;
	u32 version; /* a new one for each version of the mappings; never 0 */
	u32 first; /* index into `mappings` */
	u32 count;
	u32 pad;
};
_Static_assert(sizeof(struct process) == 32, "process");
AT(process, start_code, 0);
AT(process, start_stack, 8);
AT(process, version, 16);
AT(process, first, 20);
AT(process, count, 24);

/* struct verdict::refused */
enum refusal {
	REFUSED_NOT = 0,
	REFUSED_BY_TARGETS = 1,
	REFUSED_BY_RULE = 2, /* and above: of the lane that is so much more */
};

/* What user space decided of a process image, when targets are rules. Of no other image: what differs in any of these is sampled
 * and decided anew. */
struct verdict {
	u64 start_time; /* of the process, CLOCK_BOOTTIME, ns */
	u64 start_code; /* of its address space */
	u64 start_stack;
	u64 cgroup; /* id of its v2 control group */
	u32 refused; /* enum refusal */
	u32 pad;
};
_Static_assert(sizeof(struct verdict) == 40, "verdict");
AT(verdict, start_time, 0);
AT(verdict, start_code, 8);
AT(verdict, start_stack, 16);
AT(verdict, cgroup, 24);
AT(verdict, refused, 32);

/* How a user stack ended. */
enum unwind_end {
	END_COMPLETE = 0, /* the outermost frame */
	END_FRAME_POINTER_ZERO = 1, /* followed frame pointers until one was 0, as the ABI marks the outermost frame */
	END_TOO_DEEP = 2, /* MAX_USER_FRAMES reached */
	END_NO_MAPPING = 3, /* ip is in no known executable mapping */
	END_NOT_LOADED = 4, /* the executable's rows are not in yet */
	END_READ_FAILED = 5, /* the stack's memory could not be read */
	END_BAD_FRAME = 6, /* the frame address did not rise */
	END_UNSUPPORTED = 7, /* the rule needs a register that only a leaf frame has */
	END_UNKNOWN_PROCESS = 8, /* no mappings for this process yet */
	END_COMPAT = 9, /* a 32-bit process */
	END_NO_USER_STACK = 10, /* a kernel thread */
	END_COPY_TOO_SHORT = 11, /* in user space: the stack goes on above the copy */
	END_NO_ROW = 12, /* no row, and what should be a frame pointer is none */
	END_RUNNING = 255, /* not ended: go on */
};

/*
 * A user frame is a word, or two. Bits 56 to 61 of the first are its enum frame_kind, the 56 below an address. Of a native frame,
 * which is one word, that is the instruction pointer or return address, with these above; of all others the object that runs,
 * and a second word follows: where in it, and above that 32 bits that tell it from another object at the same address.
 */
#define FRAME_IS_IP (1ull << 63) /* an instruction pointer, not a return address */
#define FRAME_GUESSED (1ull << 62) /* found through a frame pointer for want of a row */

/* One sample. Followed by u64 kernel_frames[], u64 user_frames[], and, if stack_bytes, struct continuation and the bytes. */
struct sample {
	u64 time; /* CLOCK_MONOTONIC, ns */
	u64 start_time; /* of the process, CLOCK_BOOTTIME, ns */
	u64 start_code; /* of its address space */
	u64 start_stack;
	u64 value; /* what this sample stands for: ns of CPU time if a clock made it, else events */
	u64 cgroup; /* id of its v2 control group; 0 unless targets are rules */
	u32 pid;
	u32 tid;
	u32 parent_pid;
	u32 cpu;
	u32 version; /* of the mappings that it was unwound with; 0: none */
	u32 stack_bytes;
	u16 kernel_frames;
	u16 user_frames;
	u8 end; /* enum unwind_end */
	u8 source; /* which of the sources made it */
	u8 pad[2];
	char comm[16];
};
_Static_assert(sizeof(struct sample) == 96, "sample");
_Static_assert(offsetof(struct sample, time) == 0 && offsetof(struct sample, start_time) == 8 &&
		       offsetof(struct sample, start_code) == 16 && offsetof(struct sample, start_stack) == 24 &&
		       offsetof(struct sample, value) == 32 && offsetof(struct sample, cgroup) == 40,
	       "record.rs");
_Static_assert(offsetof(struct sample, pid) == 48 && offsetof(struct sample, tid) == 52 &&
		       offsetof(struct sample, parent_pid) == 56 && offsetof(struct sample, cpu) == 60 &&
		       offsetof(struct sample, version) == 64 && offsetof(struct sample, stack_bytes) == 68,
	       "record.rs");
_Static_assert(offsetof(struct sample, kernel_frames) == 72 && offsetof(struct sample, user_frames) == 74 &&
		       offsetof(struct sample, end) == 76 && offsetof(struct sample, source) == 77 &&
		       offsetof(struct sample, comm) == 80,
	       "record.rs");

/* Where the unwinder stopped: the frame at ip is not among the frames yet. */
struct continuation {
	u64 ip, sp, fp, rbx;
	u64 leaf; /* 1: ip was interrupted here and regs hold; */
	u64 guessed; /* FRAME_GUESSED or 0 */
	u64 thread_pointer; /* of the thread; 0: unknown */
	u64 cursor; /* struct unwind_state */
	u64 begun; /* struct unwind_state */
	u64 depth; /* frames, which are fewer than their words */
	u64 regs[LEAF_REGS]; /* by DWARF number */
};
_Static_assert(sizeof(struct continuation) == 80 + LEAF_REGS * 8, "continuation");
AT(continuation, ip, 0);
AT(continuation, sp, 8);
AT(continuation, fp, 16);
AT(continuation, rbx, 24);
AT(continuation, leaf, 32);
AT(continuation, guessed, 40);
AT(continuation, thread_pointer, 48);
AT(continuation, cursor, 56);
AT(continuation, begun, 64);
AT(continuation, depth, 72);
AT(continuation, regs, 80);

/* Of one source on one CPU. The twin is `counter.rs`: a test there holds the two together. */
enum counter {
	COUNT_SAMPLES = 0, /* samples that reached the ring */
	COUNT_RING_FULL = 1, /* samples lost since the ring was full */
	COUNT_KERNEL_STACK_FAILED = 2, /* samples whose kernel stack could not be taken */
	COUNT_FILTERED = 3, /* events that met a process that is not to be sampled */
	COUNT_OVERSIZE = 4, /* samples lost since their record had no room */
	COUNT_BUSY = 5, /* samples lost since this source was at work on this CPU already */
	COUNT_REFUSED = 6, /* ticks lost since the kernel runs no program while another one runs */
	COUNT_MADE_GOOD = 7, /* ticks that met another program of ours, which took their samples */
	COUNT_FRAMES = 8, /* user frames unwound */
	COUNT_RULE_SEARCHES = 9, /* user frames whose rule was not in the cache */
	COUNT_PASSED = 10, /* events that were counted and not sampled */
	COUNT_RULED_OUT = 11, /* events that met a process of which a rule drops all samples */
	COUNT_MAX = 12,
};

/* A walk under way. fp and rbx are followed lazily: by value, or by the stack address that holds them. */
struct unwind_state {
	u64 ip;
	u64 sp;
	u64 fp; /* its value if fp_at is 0 */
	u64 fp_at; /* user address that holds fp's value */
	u64 rbx;
	u64 rbx_at;
	u64 guessed; /* FRAME_GUESSED if ip was found so */
	u32 leaf; /* 1: this frame was interrupted; regs[] hold, and ip is an instruction pointer */
	u32 frames; /* words of user frames written */
	u32 version; /* of the process's mappings */
	u32 first_mapping;
	u32 mapping_count;
	u32 rule; /* scratch between lookup and step */
	u64 regs[LEAF_REGS]; /* by DWARF number */
	u64 thread_pointer; /* 0: not asked for yet */
	u64 cursor; /* of a runtime that keeps a stack of its own: the frame that comes next, when its code is met next */
	u32 unwinder; /* struct mapping::unwinder of this frame */
	u32 depth; /* user frames written */
	u8 begun; /* 1: `cursor` holds */
	u8 inside; /* 1: the runtime has further frames at this native one, which is written already */
	u8 pad[6];
};
AT(unwind_state, ip, 0);
AT(unwind_state, sp, 8);
AT(unwind_state, fp, 16);
AT(unwind_state, fp_at, 24);
AT(unwind_state, rbx, 32);
AT(unwind_state, rbx_at, 40);
AT(unwind_state, guessed, 48);
AT(unwind_state, leaf, 56);
AT(unwind_state, frames, 60);
AT(unwind_state, version, 64);
AT(unwind_state, first_mapping, 68);
AT(unwind_state, mapping_count, 72);
AT(unwind_state, rule, 76);
AT(unwind_state, regs, 80);
AT(unwind_state, thread_pointer, 80 + LEAF_REGS * 8);
AT(unwind_state, cursor, 88 + LEAF_REGS * 8);
AT(unwind_state, unwinder, 96 + LEAF_REGS * 8);
AT(unwind_state, depth, 100 + LEAF_REGS * 8);
AT(unwind_state, begun, 104 + LEAF_REGS * 8);
AT(unwind_state, inside, 105 + LEAF_REGS * 8);

/* A rule by the address that it was found for; whole, so that a hit touches one cache line. */
struct pc_cache_entry {
	u64 pc;
	u32 version;
	u32 unwinder; /* of the mapping */
	struct unwind_rule rule;
};
_Static_assert(sizeof(struct pc_cache_entry) == 32, "pc_cache_entry");

#endif
