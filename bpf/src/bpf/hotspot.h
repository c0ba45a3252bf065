/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * HotSpot: Java's frames are on the native stack, and each is found by what its code is:
 *
 *   interpreted        sp = *(fp - 8), ip = *(fp + 8), fp = *fp; the method is in *(fp - 24), where in it in *(fp - 64), or r13
 *   compiled           cfa = sp + frame size: ip = *(cfa - 8), fp = *(cfa - 16); compiled code has no frame pointer
 *   stub with a frame  the same
 *   stub without       ip = *(fp + 8), fp = *fp
 *   vtable stub        ip = *sp: it jumps on and never calls
 *
 * and, where a thread was interrupted, by which part of its prologue or epilogue it had done. What a piece of code is, the code heap
 * tells: a map with a byte for each segment leads to the block's start, where its header is (struct hotspot_instance says where in it).
 * Frames of one method, that the compiler inlined into each other, are one frame here, and told apart when it is named.
 */
#ifndef PROFILER_HOTSPOT_H
#define PROFILER_HOTSPOT_H

#include "unwind.h"

#define HOTSPOT_HEAPS 5
#define HOTSPOT_HOPS 16 /* of the segment map: 254 segments each, so that a blob of 500 KiB is found */
#define HOTSPOT_HEADER_BYTES 352 /* of a block that are read: its own header and the blob's */
#define HOTSPOT_CODE_BEFORE 32 /* bytes of code that are read before ip */
#define HOTSPOT_CODE_AFTER 16 /* and from ip on */
#define HOTSPOT_FRAME_MAX 0x80000 /* bytes from an interpreted frame's sp to its fp: 65,535 locals and more */
#define HOTSPOT_SENDER_MAX 0x10000 /* bytes to the caller's sp while a frame is under construction */
#define HOTSPOT_METHOD_MAX 65536 /* bytes of bytecodes */
#define HOTSPOT_SUBTYPE_SHIFT 48 /* in a frame's object */
#define HOTSPOT_CALL_STUB_RBX (-56) /* from fp: where the call stub saves its caller's rbx */

/* The upper 8 of the 56 bits of a frame's object. The twin is in `hotspot/names.rs`. */
enum hotspot_frame {
	HOTSPOT_INTERPRETED = 1, /* Method*, index of the bytecode, low half of ConstMethod* */
	HOTSPOT_COMPILED = 2, /* nmethod*, return address as an offset in its code, compile id */
	HOTSPOT_COMPILED_LEAF = 3, /* the same where it was interrupted */
	HOTSPOT_STUB = 4, /* CodeBlob*, offset in its code */
};

/* Names of blobs, by their first four letters. */
enum hotspot_name {
	HOTSPOT_NAME_NMETHOD = 0x74656d6e, /* nmethod */
	HOTSPOT_NAME_NATIVE = 0x6974616e, /* native nmethod */
	HOTSPOT_NAME_VTABLE = 0x62617476, /* vtable chunks */
	HOTSPOT_NAME_ADAPTER = 0x2f433249, /* I2C/C2I adapters */
	HOTSPOT_NAME_HANDLES = 0x6874654d, /* MethodHandles adapters */
};

struct hotspot_heap {
	u64 low; /* first address */
	u64 segmap; /* first address of its segment map */
	u32 bytes; /* that are reserved */
	u32 pad;
};

/* Of one JVM. The twin is `hotspot::attach::Raw`. Offsets of a blob count from the header of its block. */
struct hotspot_instance {
	u64 interpreter; /* first address of the interpreter's code */
	u64 interpreter_blob;
	u64 call_stub_return; /* where the stub that calls Java goes on */
	u32 interpreter_bytes;
	u32 entries_start; /* the interpreter's entries of methods: offsets from its start */
	u32 entries_end;
	u16 block_bytes; /* of the block's header */
	u16 block_used; /* a byte */
	u16 name; /* pointer */
	u16 frame_size; /* s32, words */
	u16 frame_complete; /* s32, or s16: bytes */
	u16 code_begin; /* pointer, or s32 from the blob's start */
	u16 deopt; /* the same */
	u16 orig_pc; /* s32: from sp */
	u16 compile_id; /* u32 */
	u16 method_const; /* of a Method: its ConstMethod */
	u16 const_method_bytes; /* after which its bytecodes are */
	u8 segment_shift;
	u8 bcp_word; /* words below fp where an interpreted frame keeps the address of its bytecode */
	u8 short_complete; /* 1: frame_complete has 16 bits */
	u8 code_begin_offset; /* 1: code_begin is an offset */
	u8 deopt_offset; /* 1: deopt is one */
	u8 pad;
	u64 code; /* first address of all heaps */
	u64 code_bytes; /* to the end of the last */
	struct hotspot_heap heaps[HOTSPOT_HEAPS];
};
_Static_assert(sizeof(struct hotspot_instance) <= INSTANCE_BYTES, "hotspot_instance");
AT(hotspot_instance, interpreter, 0);
AT(hotspot_instance, interpreter_blob, 8);
AT(hotspot_instance, call_stub_return, 16);
AT(hotspot_instance, interpreter_bytes, 24);
AT(hotspot_instance, entries_start, 28);
AT(hotspot_instance, entries_end, 32);
AT(hotspot_instance, block_bytes, 36);
AT(hotspot_instance, block_used, 38);
AT(hotspot_instance, name, 40);
AT(hotspot_instance, frame_size, 42);
AT(hotspot_instance, frame_complete, 44);
AT(hotspot_instance, code_begin, 46);
AT(hotspot_instance, deopt, 48);
AT(hotspot_instance, orig_pc, 50);
AT(hotspot_instance, compile_id, 52);
AT(hotspot_instance, method_const, 54);
AT(hotspot_instance, const_method_bytes, 56);
AT(hotspot_instance, segment_shift, 58);
AT(hotspot_instance, bcp_word, 59);
AT(hotspot_instance, short_complete, 60);
AT(hotspot_instance, code_begin_offset, 61);
AT(hotspot_instance, deopt_offset, 62);
AT(hotspot_instance, code, 64);
AT(hotspot_instance, code_bytes, 72);
AT(hotspot_instance, heaps, 80);

#if LEAF_REGS == 16 /* x86-64, whose registers by DWARF number these are */
#define HOTSPOT_PARTS

/* A loop that clang must not unroll; and what is in memory must be read from there, as it may be anything for the verifier. */
#ifdef __bpf__
#define HOTSPOT_LOOP _Pragma("clang loop unroll(disable)")
#define HOTSPOT_FORGET asm volatile("" ::: "memory")
#else
#define HOTSPOT_LOOP
#define HOTSPOT_FORGET
#endif

#define HOTSPOT_RAX 0
#define HOTSPOT_R13 13

/* What lies in the room from one part of a step to the next. */
struct hotspot_room {
	u64 header[65]; /* of the block; and words of the stack */
	u64 code[8]; /* around ip */
	u64 blob;
	u64 begin; /* of its code */
	s32 complete; /* bytes from there on that are its prologue */
	u32 size; /* of its frame, bytes */
	u32 name; /* enum hotspot_name, or any other */
	u32 phase; /* enum hotspot_phase */
	u64 found; /* where the instruction that makes the frame ends, from code[0] on; above 32 bits: fp has been pushed before */
};
_Static_assert(sizeof(struct hotspot_room) <= RUNTIME_WORDS * 8, "hotspot_room");

static __always_inline struct hotspot_room *hotspot_room(unwind_context s)
{
	return (struct hotspot_room *)runtime_room(s);
}

/* Whether `address` is among the code heaps, so that it may be a return address into Java. */
static __always_inline int hotspot_is_code(const struct hotspot_instance *h, u64 address)
{
	return opaque(address - h->code) < opaque(h->code_bytes);
}

/* Whether `address` is where the caller's stack may begin. */
static __always_inline int hotspot_is_sender(unwind_context s, u64 address)
{
	return address - s->state.sp < HOTSPOT_SENDER_MAX && !(address & 7);
}

/* The caller: its frame is above this one. */
static __always_inline int hotspot_take(unwind_context s, u64 ip, u64 sp)
{
	struct unwind_state *u = &s->state;

	if (!ip || sp < u->sp || (sp == u->sp && !u->leaf))
		return END_BAD_FRAME;
	u->ip = code_address(ip);
	u->sp = sp;
	u->leaf = 0;
	u->guessed = 0;
	return END_RUNNING;
}

static __always_inline int hotspot_write(unwind_context s, u64 subtype, u64 object, u32 position, u32 cookie)
{
	object &= (1ull << HOTSPOT_SUBTYPE_SHIFT) - 1;
	return write_runtime(s, FRAME_HOTSPOT, object | subtype << HOTSPOT_SUBTYPE_SHIFT, position, cookie);
}

/* ip = *(fp + 8), fp = *fp */
static __always_inline int hotspot_by_frame_pointer(unwind_context s)
{
	struct unwind_state *u = &s->state;
	u64 pair[2];

	if (load_fp(s))
		return END_READ_FAILED;
	if (u->fp < u->sp)
		return END_BAD_FRAME;
	if (read_stack(s, pair, 2, u->fp))
		return END_READ_FAILED;
	u64 sp = u->fp + 16;
	u->fp = pair[0];
	return hotspot_take(s, pair[1], sp);
}

/*
 * The interrupted frame is not there yet, or not any more: its return address is at sp, in rax (an entry or adapter took it off to
 * make room for more arguments), above the fp that it has just saved, or in r13 (on the way out). `sender`: the register that may
 * hold the caller's sp, as the interpreter's conventions have it.
 */
static __always_inline int hotspot_frameless(unwind_context s, const struct hotspot_instance *h, u64 sender)
{
	struct unwind_state *u = &s->state;
	u64 *w = runtime_room(s);
	u64 sp = hotspot_is_sender(s, sender) ? sender : 0;

	if (u->fp_at || read_user(s, w, 16, u->sp))
		return END_READ_FAILED;
	/* behind `push rbp; mov rbp, rsp`: fp is a few words above sp */
	if (u->fp - u->sp <= 32 && sp > u->fp) {
		u64 *pair = w + 2;

		if (!read_user(s, pair, 16, u->fp) && hotspot_is_code(h, pair[1])) {
			u->fp = pair[0];
			return hotspot_take(s, pair[1], sp);
		}
	}
	if (hotspot_is_code(h, w[0]))
		return hotspot_take(s, w[0], sp > u->sp ? sp : u->sp + 8);
	if (hotspot_is_code(h, u->regs[HOTSPOT_RAX]))
		return hotspot_take(s, u->regs[HOTSPOT_RAX], sp ? sp : u->sp);
	if (hotspot_is_code(h, w[1])) {
		u->fp = w[0];
		return hotspot_take(s, w[1], sp > u->sp + 8 ? sp : u->sp + 16);
	}
	if (hotspot_is_code(h, u->regs[HOTSPOT_R13]))
		return hotspot_take(s, u->regs[HOTSPOT_R13], u->sp);
	return END_BAD_FRAME;
}

/* In the interpreter. */
static __always_inline int hotspot_interpreted(unwind_context s, const struct hotspot_instance *h)
{
	struct unwind_state *u = &s->state;
	u64 *w = runtime_room(s);
	u64 offset = u->ip - h->interpreter;
	u64 r13 = u->regs[HOTSPOT_R13];
	u64 constant, start, bci;

	if (u->leaf && offset >= h->entries_start && offset < h->entries_end && hotspot_is_sender(s, r13)) {
		/* r13 is still the caller's sp, and not the bytecode: the frame is not there yet; the method is in rbx */
		if (!u->rbx_at && !(u->rbx & 7) && !read_user(s, &constant, 8, u->rbx + h->method_const)) {
			if (hotspot_write(s, HOTSPOT_INTERPRETED, u->rbx, 0, (u32)constant))
				return END_TOO_DEEP;
		} else if (hotspot_write(s, HOTSPOT_STUB, h->interpreter_blob, (u32)offset, 0)) {
			return END_TOO_DEEP;
		}
		return hotspot_frameless(s, h, r13);
	}
	if (load_fp(s))
		return END_READ_FAILED;
	/* words from fp - 64 on */
	if (u->fp - u->sp > HOTSPOT_FRAME_MAX || read_user(s, w, 80, u->fp - 64) ||
	    read_user(s, &constant, 8, w[5] + h->method_const))
		goto none;
	start = constant + h->const_method_bytes;
	u64 bcp = w[(8 - h->bcp_word) & 7];
	bci = bcp - start;
	if (u->leaf && r13 - start < HOTSPOT_METHOD_MAX)
		bci = r13 - start;
	else if (!bcp)
		bci = 0; /* of a native method */
	if (bci >= HOTSPOT_METHOD_MAX || w[7] <= u->fp)
		goto none;
	if (hotspot_write(s, HOTSPOT_INTERPRETED, w[5], (u32)bci, (u32)constant))
		return END_TOO_DEEP;
	u->fp = w[8];
	return hotspot_take(s, w[9], w[7]);
none:
	if (!u->leaf)
		return END_BAD_FRAME;
	/* on its way out, where the caller's sp is in rbx */
	if (hotspot_write(s, HOTSPOT_STUB, h->interpreter_blob, (u32)offset, 0))
		return END_TOO_DEEP;
	return hotspot_frameless(s, h, u->rbx_at ? 0 : u->rbx);
}

/* The header of the block that has `pc`; 0: none. */
static __always_inline u64 hotspot_block(unwind_context s, const struct hotspot_instance *h, u64 pc)
{
	u64 low = 0, segmap = 0, segment;
	u8 hop = 0xff;

	for (int i = 0; i < HOTSPOT_HEAPS; i++) {
		if (pc - h->heaps[i].low < h->heaps[i].bytes) {
			low = h->heaps[i].low;
			segmap = h->heaps[i].segmap;
		}
	}
	if (!low)
		return 0;
	segment = (pc - low) >> (h->segment_shift & 31);
	HOTSPOT_LOOP
	for (int i = 0; i < HOTSPOT_HOPS; i++) {
		if (read_user(s, &hop, 1, segmap + segment))
			return 0;
		if (hop == 0 || hop == 0xff)
			break;
		segment -= hop;
	}
	return hop ? 0 : low + (segment << (h->segment_shift & 31));
}

static __always_inline u64 hotspot_word(const u64 *room, u16 at)
{
	return *(const u64 *)((const char *)room + (at & 511));
}

static __always_inline s32 hotspot_half(const u64 *room, u16 at)
{
	return *(const s32 *)((const char *)room + (at & 511));
}

static __always_inline u8 hotspot_code(const u64 *code, u32 at)
{
	return ((const u8 *)code)[at & 63];
}

/* How far the prologue or epilogue is at the place of the interruption. */
enum hotspot_phase {
	PHASE_BODY, /* the frame is whole */
	PHASE_FP_LIVE, /* the frame is there, fp is not saved in it yet */
	PHASE_FP_SAVED, /* nothing but fp is on the stack */
	PHASE_NOTHING, /* the return address is at sp */
};

/*
 * Prologues: `push rbp; [mov rbp, rsp;] sub rsp, N` with N + 16 bytes of frame, or `sub rsp, N; mov [rsp + N - 8], rbp` with N + 8. Behind
 * them may be more, such as a barrier, before HotSpot calls the frame complete.
 * Epilogues: `add rsp, N; pop rbp; [a poll;] ret`. The polls are, by version: `test eax, [rip + x]` (8), `mov r10, [r15 + x]; test
 * [r10], eax` (11), `cmp rsp, [r15 + x]; ja` (17 and later).
 */
static __always_inline int hotspot_phase(unwind_context s)
{
	struct unwind_state *u = &s->state;
	struct hotspot_room *room = hotspot_room(s);
	u64 *w = room->code;
	const u32 p = HOTSPOT_CODE_BEFORE;
	s64 offset = u->ip - room->begin;

	if (read_user(s, w, HOTSPOT_CODE_BEFORE + HOTSPOT_CODE_AFTER, u->ip - p))
		return PHASE_BODY;
	if (offset < room->complete) {
		/* The last `sub` of the frame's size before ip, at `i`. What is found goes to memory, of which verifiers remember nothing:
		 * else they follow the loop once for each outcome. */
		room->found = 0;
		HOTSPOT_LOOP
		for (u32 i = 0; i < p - 3; i++) {
			HOTSPOT_FORGET;
			u32 form = hotspot_code(w, i) | hotspot_code(w, i + 1) << 8 | hotspot_code(w, i + 2) << 16;
			u32 n = hotspot_code(w, i + 3);
			u32 ends = i + 4;

			if (form == 0xec8148) {
				n |= hotspot_code(w, i + 4) << 8 | hotspot_code(w, i + 5) << 16 | (u32)hotspot_code(w, i + 6) << 24;
				ends = i + 7;
			} else if (form != 0xec8348) {
				continue;
			}
			if (ends > p)
				continue;
			if (n + 16 == room->size)
				room->found = ends | 1ull << 32;
			else if (n + 8 == room->size)
				room->found = ends;
		}
		HOTSPOT_FORGET;
		u64 allocated = room->found;

		/* in this blob, it has been executed */
		if (allocated && (s64)(p - (u32)allocated) <= offset) {
			if (allocated >> 32)
				return PHASE_BODY;
			/* without a push, the store of 5 or 8 bytes follows: mov [rsp + x], rbp */
			u32 stored = hotspot_code(w, allocated + 2) == 0x6c ? 5 : 8;
			return allocated + stored <= p ? PHASE_BODY : PHASE_FP_LIVE;
		}
		if (offset >= 1 && hotspot_code(w, p - 1) == 0x55)
			return PHASE_FP_SAVED;
		if (offset >= 4 && hotspot_code(w, p - 4) == 0x55 && hotspot_code(w, p - 3) == 0x48 &&
		    (hotspot_code(w, p - 2) == 0x8b || hotspot_code(w, p - 2) == 0x89))
			return PHASE_FP_SAVED;
		return PHASE_NOTHING;
	}
	u8 first = hotspot_code(w, p), second = hotspot_code(w, p + 1), third = hotspot_code(w, p + 2);

	if (first == 0x5d)
		return PHASE_FP_SAVED;
	if (first == 0xc3)
		return PHASE_NOTHING;
	/* cmp rsp, [r15 + x] with 8 or 32 bits of x; ja; ret */
	if (first == 0x49 && second == 0x3b &&
	    ((third == 0x67 && hotspot_code(w, p + 4) == 0x0f && hotspot_code(w, p + 5) == 0x87 && hotspot_code(w, p + 10) == 0xc3) ||
	     (third == 0xa7 && hotspot_code(w, p + 7) == 0x0f && hotspot_code(w, p + 8) == 0x87 && hotspot_code(w, p + 13) == 0xc3)))
		return PHASE_NOTHING;
	if (first == 0x0f && second == 0x87 && hotspot_code(w, p + 6) == 0xc3)
		return PHASE_NOTHING;
	if (first == 0x4d && second == 0x8b && third == 0x97 && hotspot_code(w, p + 7) == 0x41 && hotspot_code(w, p + 8) == 0x85 &&
	    hotspot_code(w, p + 9) == 0x02 && hotspot_code(w, p + 10) == 0xc3)
		return PHASE_NOTHING;
	if (first == 0x41 && second == 0x85 && third == 0x02 && hotspot_code(w, p + 3) == 0xc3)
		return PHASE_NOTHING;
	if (first == 0x85 && second == 0x05 && hotspot_code(w, p + 6) == 0xc3)
		return PHASE_NOTHING;
	return PHASE_BODY;
}

/* A frame of `size` bytes: cfa = sp + size. */
static __always_inline int hotspot_sized(unwind_context s, u32 size, int phase)
{
	struct unwind_state *u = &s->state;
	u64 pair[2];

	if (phase == PHASE_NOTHING) {
		if (read_stack(s, pair, 1, u->sp))
			return END_READ_FAILED;
		return hotspot_take(s, pair[0], u->sp + 8);
	}
	if (phase == PHASE_FP_SAVED)
		size = 16;
	if (size < 16)
		return END_BAD_FRAME;
	u64 cfa = u->sp + size;

	if (read_stack(s, pair, 2, cfa - 16))
		return END_READ_FAILED;
	if (phase != PHASE_FP_LIVE) {
		u->fp = pair[0];
		u->fp_at = 0;
	}
	return hotspot_take(s, pair[1], cfa);
}

/* In a stub, interrupted: it may have its frame or not, and pushed what it likes. Its caller is Java's code. */
static __always_inline int hotspot_stub_return(unwind_context s, const struct hotspot_instance *h, u32 size)
{
	struct unwind_state *u = &s->state;
	u64 *w = hotspot_room(s)->header;
	u64 *code = hotspot_room(s)->code;
	const u32 p = HOTSPOT_CODE_BEFORE;
	u64 sp = u->sp;

	if (read_user(s, code, HOTSPOT_CODE_BEFORE + HOTSPOT_CODE_AFTER, u->ip - p) || read_user(s, w, 64, sp))
		return hotspot_by_frame_pointer(s);
	u8 next = hotspot_code(code, p);
	u8 leaves = next == 0xc3 || (next == 0xc5 && hotspot_code(code, p + 2) == 0x77 && hotspot_code(code, p + 3) == 0xc3);

	/* about to push or to return */
	if ((next == 0x55 || leaves) && hotspot_is_code(h, w[0]))
		return hotspot_take(s, w[0], sp + 8);
	if ((hotspot_code(code, p - 1) == 0x55 || next == 0x5d) && hotspot_is_code(h, w[1])) {
		u->fp = w[0];
		u->fp_at = 0;
		return hotspot_take(s, w[1], sp + 16);
	}
	if (size >= 16) {
		u64 pair[2];

		if (!read_stack(s, pair, 2, sp + size - 16) && hotspot_is_code(h, pair[1])) {
			u->fp = pair[0];
			u->fp_at = 0;
			return hotspot_take(s, pair[1], sp + size);
		}
	}
	if (load_fp(s))
		return END_READ_FAILED;
	if (u->fp - sp < HOTSPOT_SENDER_MAX) {
		u64 pair[2];

		if (!read_stack(s, pair, 2, u->fp) && hotspot_is_code(h, pair[1])) {
			sp = u->fp + 16;
			u->fp = pair[0];
			return hotspot_take(s, pair[1], sp);
		}
	}
	/* the first word above that may be a return address */
	u64 found = 0, above = 0;

	for (int i = 7; i >= 0; i--) {
		if (hotspot_is_code(h, w[i])) {
			found = w[i];
			above = i * 8 + 8;
		}
	}
	if (found)
		return hotspot_take(s, found, sp + above);
	return hotspot_by_frame_pointer(s);
}

/*
 * A step is made in parts, of which verifiers check each by itself: hotspot_locate() says which comes next, and hotspot_phase() comes
 * before hotspot_method_leaf().
 */
enum hotspot_part {
	HOTSPOT_PART_INTERPRETED = 300,
	HOTSPOT_PART_METHOD = 301,
	HOTSPOT_PART_METHOD_LEAF = 302,
	HOTSPOT_PART_STUB = 303,
	HOTSPOT_PART_STUB_LEAF = 304,
};

/* What the code at ip is: enum hotspot_part, or END_BAD_FRAME. */
static __always_inline int hotspot_locate(unwind_context s, const struct hotspot_instance *h)
{
	struct unwind_state *u = &s->state;
	struct hotspot_room *room = hotspot_room(s);
	u64 *w = room->header;

	if (u->ip - h->interpreter < h->interpreter_bytes)
		return HOTSPOT_PART_INTERPRETED;

	u64 block = hotspot_block(s, h, u->leaf ? u->ip : u->ip - 1);

	if (!block || read_user(s, w, HOTSPOT_HEADER_BYTES, block) || !(u8)hotspot_half(w, h->block_used) ||
	    read_user(s, &room->name, 4, hotspot_word(w, h->name)))
		return END_BAD_FRAME;
	room->blob = block + h->block_bytes;
	room->begin = h->code_begin_offset ? room->blob + (s64)hotspot_half(w, h->code_begin) : hotspot_word(w, h->code_begin);
	u64 size = (u64)(u32)hotspot_half(w, h->frame_size) * 8;

	room->size = size > HOTSPOT_FRAME_MAX ? 0 : (u32)size;
	room->complete = hotspot_half(w, h->frame_complete);
	if (h->short_complete)
		room->complete = (s16)room->complete;
	if (room->name == HOTSPOT_NAME_NMETHOD || room->name == HOTSPOT_NAME_NATIVE)
		return u->leaf ? HOTSPOT_PART_METHOD_LEAF : HOTSPOT_PART_METHOD;
	return u->leaf ? HOTSPOT_PART_STUB_LEAF : HOTSPOT_PART_STUB;
}

/* In a compiled method, interrupted in this phase. */
static __always_inline int hotspot_method_leaf(unwind_context s, const struct hotspot_instance *h)
{
	struct unwind_state *u = &s->state;
	struct hotspot_room *room = hotspot_room(s);
	u32 id = (u32)hotspot_half(room->header, h->compile_id);

	if (hotspot_write(s, HOTSPOT_COMPILED_LEAF, room->blob, (u32)(u->ip - room->begin), id))
		return END_TOO_DEEP;
	return hotspot_sized(s, room->size, room->phase);
}

/* In a compiled method that called. */
static __always_inline int hotspot_method(unwind_context s, const struct hotspot_instance *h)
{
	struct unwind_state *u = &s->state;
	struct hotspot_room *room = hotspot_room(s);
	u64 *w = room->header;
	u32 id = (u32)hotspot_half(w, h->compile_id);
	u64 deopt = h->deopt_offset ? room->blob + (s64)hotspot_half(w, h->deopt) : hotspot_word(w, h->deopt);

	if (u->ip == deopt) {
		/* it will go on interpreted; the address that was there is in its frame */
		u64 original;

		if (!read_user(s, &original, 8, u->sp + (s64)hotspot_half(w, h->orig_pc)) &&
		    original - room->begin < deopt - room->begin)
			u->ip = original;
	}
	if (hotspot_write(s, HOTSPOT_COMPILED, room->blob, (u32)(u->ip - room->begin), id))
		return END_TOO_DEEP;
	return hotspot_sized(s, room->size, PHASE_BODY);
}

/* In a stub, interrupted. */
static __always_inline int hotspot_stub_leaf(unwind_context s, const struct hotspot_instance *h)
{
	struct unwind_state *u = &s->state;
	struct hotspot_room *room = hotspot_room(s);

	if (hotspot_write(s, HOTSPOT_STUB, room->blob, (u32)(u->ip - room->begin), 0))
		return END_TOO_DEEP;
	if (room->name == HOTSPOT_NAME_VTABLE)
		return hotspot_sized(s, 0, PHASE_NOTHING);
	if (room->name == HOTSPOT_NAME_ADAPTER || room->name == HOTSPOT_NAME_HANDLES)
		return hotspot_frameless(s, h, u->regs[HOTSPOT_R13]);
	return hotspot_stub_return(s, h, room->size);
}

/* In a stub that called. */
static __always_inline int hotspot_stub(unwind_context s, const struct hotspot_instance *h)
{
	struct unwind_state *u = &s->state;
	struct hotspot_room *room = hotspot_room(s);

	if (hotspot_write(s, HOTSPOT_STUB, room->blob, (u32)(u->ip - room->begin), 0))
		return END_TOO_DEEP;
	if (room->size)
		return hotspot_sized(s, room->size, PHASE_BODY);
	/* the stub that calls Java gives its caller back what Java may change */
	if (u->ip == h->call_stub_return) {
		if (load_fp(s))
			return END_READ_FAILED;
		u->rbx_at = u->fp + HOTSPOT_CALL_STUB_RBX;
	}
	return hotspot_by_frame_pointer(s);
}

#endif
#endif
