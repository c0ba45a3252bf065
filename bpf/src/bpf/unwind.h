/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The unwinder's core: from one frame's registers to its caller's. It compiles twice, for BPF and natively (the tests, and
 * the stacks that user space unwinds itself); the two differ only in how memory and tables are reached:
 *
 *   read_user(s, dst, len, address)     0, or negative if the target's memory could not be read
 *   read_stack(s, dst, words, address)  the same for one or two words, for places that rise from frame to frame
 *   signal_room(s)                      room for SIGNAL_WORDS words
 *   runtime_room(s)                     room for RUNTIME_WORDS words, for one runtime's step
 *   thread_pointer(s)                   of the thread whose stack it is; 0: unknown
 *   write_frame(s, words, first, second)  writes a frame of one or two words down; 0 or END_TOO_DEEP
 *   get_mapping(s, i)  get_executable(s, i)  get_row_page(s, i)  get_rule(s, i)
 *   get_slab(s, i)  get_row(slab, i, &row)
 *   opaque(x)                           x, of which the compiler knows nothing: keeps a check on the register that is used
 *
 * All of them, and what is here, take the context `s` of their walk, unwind_context, whose `state` is the frame it stands at.
 *
 * Registers are followed lazily: sp is always known; for fp and rbx we keep either the value or the stack address at which
 * it was saved, and read it only when a rule asks. Code without frame pointers then costs one read a frame.
 */
#ifndef PROFILER_UNWIND_H
#define PROFILER_UNWIND_H

#include "arch.h"

#define RULE_NO_MAPPING 0xffffffffu
#define RULE_NOT_LOADED 0xfffffffeu

/* Rule index for `pc`, and whose code it is in the state's `unwinder`, by binary search of the mappings, then of the 64 KiB page's rows. */
static __always_inline u32 find_rule(unwind_context s, u64 pc)
{
	u32 base = s->state.first_mapping;
	u32 length = s->state.mapping_count;
	const struct mapping *m;

	if (!length)
		return RULE_NO_MAPPING;
	/* last mapping with start <= pc; branch-free, so that the verifier walks one path */
	for (int i = 0; i < 17; i++) {
		u32 half = length >> 1;
		s64 below;

		if (!half)
			break;
		m = get_mapping(s, base + half);
		if (!m)
			return RULE_NO_MAPPING;
		below = (s64)opaque(m->start - pc - 1); /* negative: start <= pc, as user addresses have 56 bits */
		base += half & (u32)(below >> 63);
		length -= half;
	}
	m = get_mapping(s, base);
	if (!m || pc < m->start || pc >= m->end)
		return RULE_NO_MAPPING;
	s->state.unwinder = m->unwinder;
	if (m->executable == NO_EXECUTABLE)
		return 0;

	const struct executable *e = get_executable(s, m->executable);
	if (!e)
		return 0;
	u32 page_count = e->page_count;
	if (!page_count)
		return RULE_NOT_LOADED;
	u64 vaddr = pc - m->bias;
	u64 page = (vaddr >> ROW_PAGE_SHIFT) - e->first_page;
	if (page >= page_count)
		return 0;
	const struct row_page *p = get_row_page(s, e->page_base + (u32)page);
	if (!p)
		return 0;

	u32 first = p->first;
	u32 slab = first >> SLAB_ROWS_SHIFT;
	u32 low = (u32)vaddr & 0xffff;
	u32 row = 0;
	base = first & (SLAB_ROWS - 1);
	length = p->count;
	if (!length)
		return 0;
	row_slab *rows = get_slab(s, slab);
	if (!rows)
		return 0;
	for (int i = 0; i < 17; i++) {
		u32 half = length >> 1;
		s64 below;

		if (!half)
			break;
		if (get_row(rows, base + half, &row))
			return 0;
		below = (s64)opaque((u64)(row & 0xffff) - low - 1);
		base += half & (u32)(below >> 63);
		length -= half;
	}
	if (get_row(rows, base, &row) || (row & 0xffff) > low)
		return 0;
	return row >> 16;
}

/* The value of fp in this frame; 0 or END_READ_FAILED. */
static __always_inline int load_fp(unwind_context s)
{
	struct unwind_state *u = &s->state;

	if (u->fp_at) {
		if (read_user(s, &u->fp, sizeof(u->fp), u->fp_at))
			return END_READ_FAILED;
		u->fp_at = 0;
	}
	return 0;
}

/* The value of rbx in this frame; 0 or END_READ_FAILED. */
static __always_inline int load_rbx(unwind_context s)
{
	struct unwind_state *u = &s->state;

	if (u->rbx_at) {
		if (read_user(s, &u->rbx, sizeof(u->rbx), u->rbx_at))
			return END_READ_FAILED;
		u->rbx_at = 0;
	}
	return 0;
}

/* rt_sigframe: every register of the interrupted frame is in its `mcontext`, at `saved`. */
static __always_inline int step_signal(unwind_context s, u64 saved)
{
	struct unwind_state *u = &s->state;
	u64 *words = signal_room(s);

	if (read_user(s, words, SIGNAL_WORDS * 8, saved))
		return END_READ_FAILED;
	take_signal(u, words);
	u->fp_at = 0;
	u->rbx_at = 0;
	u->leaf = 1;
	u->guessed = 0;
	return u->ip ? END_RUNNING : END_COMPLETE;
}

/* The frame pointer chain: cfa = fp + 16, ip = *(cfa - 8), fp = *(cfa - 16). */
static __always_inline int step_frame_pointer(unwind_context s, u64 guessed)
{
	struct unwind_state *u = &s->state;
	u64 pair[2];

	if (load_fp(s))
		return END_READ_FAILED;
	/* in the interrupted frame 0 may be any value; from a caller on it is the ABI's mark of the outermost frame */
	if (!u->fp)
		return guessed && u->leaf ? END_NO_ROW : END_FRAME_POINTER_ZERO;
	/* a guess must rise; code that keeps frame pointers by design may switch stacks with them */
	if (guessed && u->fp < u->sp)
		return END_NO_ROW;
	if (read_stack(s, pair, 2, u->fp))
		return END_READ_FAILED;
	u->sp = u->fp + 16;
	u->fp = pair[0];
	u->ip = code_address(pair[1]);
	u->leaf = 0;
	u->guessed = guessed;
	return u->ip ? END_RUNNING : END_COMPLETE;
}

/* From the frame in `s` to its caller, by rule `r`: END_RUNNING, or why there is no caller. */
static __always_inline int step_rule(unwind_context s, const struct unwind_rule *r)
{
	struct unwind_state *u = &s->state;
	u64 base, cfa, slot;
	u8 kind = r->cfa_kind;
	u8 reg = r->cfa_reg;
	s16 fp_off8 = r->fp_off8;
	s16 rbx_off8 = r->rbx_off8;

	if (kind == CFA_END)
		return END_COMPLETE;
	if (kind == CFA_NONE)
		return step_frame_pointer(s, FRAME_GUESSED);
	if (kind == CFA_FRAME_POINTER)
		return step_frame_pointer(s, 0);
	if (kind == CFA_SIGNAL)
		return step_signal(s, u->sp + r->cfa_off);

	/* cfa = reg + off   |   *(reg + off) + off2   |   sp + off + ((ip & 15) >= off2) * 8 */
	if (reg == REG_SP) {
		base = u->sp;
	} else if (reg == REG_FP) {
		if (load_fp(s))
			return END_READ_FAILED;
		base = u->fp;
	} else if (reg == REG_BASE) {
		if (load_rbx(s))
			return END_READ_FAILED;
		base = u->rbx;
	} else if (u->leaf) {
		base = u->regs[reg & (LEAF_REGS - 1)];
	} else {
		return END_UNSUPPORTED;
	}
	cfa = base + r->cfa_off;
	if (kind == CFA_DEREF) {
		if (read_user(s, &cfa, sizeof(cfa), cfa))
			return END_READ_FAILED;
		cfa += r->cfa_off2;
	} else if (kind == CFA_PLT) {
		cfa += (u->ip & 15) >= (u64)r->cfa_off2 ? 8 : 0;
	}
	/* the return address is above the stack pointer, so the frame address rises with every step */
	if (cfa <= u->sp && r->ra_kind != RA_REGISTER)
		return END_BAD_FRAME;

	if (r->flags & (RULE_FP_AT_FP | RULE_RBX_AT_FP)) {
		if (load_fp(s))
			return END_READ_FAILED;
	}
	if (rbx_off8 != SAVED_SAME) {
		base = r->flags & RULE_RBX_AT_FP ? u->fp : cfa;
		u->rbx_at = base + (s64)rbx_off8 * 8;
	}

	/* ip = *(cfa + 8 ra), fp = *(cfa + 8 fp_off8): one read where they lie side by side */
	if (r->ra_kind == RA_REGISTER) {
		if (!u->leaf)
			return END_UNSUPPORTED;
		u->ip = code_address(u->regs[r->ra & (LEAF_REGS - 1)]);
		if (fp_off8 != SAVED_SAME)
			u->fp_at = cfa + (s64)fp_off8 * 8;
	} else if (fp_off8 == r->ra - 1 && !(r->flags & RULE_FP_AT_FP)) {
		u64 pair[2];

		if (read_stack(s, pair, 2, cfa + (s64)fp_off8 * 8))
			return END_READ_FAILED;
		u->fp = pair[0];
		u->fp_at = 0;
		u->ip = code_address(pair[1]);
	} else {
		slot = cfa + (s64)r->ra * 8;
		if (fp_off8 != SAVED_SAME) {
			base = r->flags & RULE_FP_AT_FP ? u->fp : cfa;
			u->fp_at = base + (s64)fp_off8 * 8;
		}
		if (r->flags & RULE_SAVED_AT_POINTERS &&
		    (read_user(s, &u->fp_at, sizeof(u->fp_at), u->fp_at) ||
		     read_user(s, &u->rbx_at, sizeof(u->rbx_at), u->rbx_at)))
			return END_READ_FAILED;
		if (read_stack(s, &u->ip, 1, slot))
			return END_READ_FAILED;
		u->ip = code_address(u->ip);
	}
	u->sp = cfa;
	u->guessed = 0;
	if (!u->ip) {
		/* the outermost frame was called from nowhere; the interrupted one alone is no stack */
		return u->leaf ? END_BAD_FRAME : END_COMPLETE;
	}
	u->leaf = 0;
	return END_RUNNING;
}

/* The frame as it is written down. */
static __always_inline u64 frame_word(const struct unwind_state *u)
{
	return (u->ip & ((1ull << 56) - 1)) | u->guessed | (u->leaf ? FRAME_IS_IP : 0);
}

/* The frame in `s` as an address. */
static __always_inline int write_native(unwind_context s)
{
	return write_frame(s, 1, frame_word(&s->state), 0);
}

/* A frame of a runtime. `kind` is its enum frame_kind. */
static __always_inline int write_runtime(unwind_context s, u64 kind, u64 object, u32 position, u32 cookie)
{
	return write_frame(s, 2, (object & ((1ull << 56) - 1)) | kind << 56, position | (u64)cookie << 32);
}

#endif
