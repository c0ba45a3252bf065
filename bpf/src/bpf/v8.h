/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * V8: its frames lie on the native stack and all keep the frame pointer, code of its compilers as well as what runs bytecode:
 *
 *   fp + 8   return address
 *   fp       the caller's fp
 *   fp - 8   context; or, of what is no JavaScript, what kind of frame it is, whose lowest bit is 0
 *   fp - 16  function (JSFunction)
 *   fp - 32  of bytecode: it
 *   fp - 40  of bytecode: where in it, as a small integer
 *
 *   caller's ip = *(fp + 8), caller's fp = *fp, caller's sp = fp + 16
 *
 * What is sent of a function is not the closure, which moves and dies young, but what all its closures share (SharedFunctionInfo). Of
 * machine code the address is sent, of which user space finds out what it was made from. Frames of builtins are native ones.
 */
#ifndef PROFILER_V8_H
#define PROFILER_V8_H

#include "unwind.h"

#define V8_COPIES 3
#define V8_SHARED_WORDS 7

/* What a frame's position is: above the 30 bits of its cookie that tell functions apart. */
enum v8_position {
	V8_NOWHERE = 0, /* nothing is known of it */
	V8_IN_BYTECODE = 1, /* what fp - 40 says */
	V8_IN_CODE = 2, /* the lower half of an address in machine code; the function, if there is none, is what the code is of */
};

/* Of one V8 in one address space. Offsets are bytes. The twin is `v8::instance::bytes`. */
struct v8_instance {
	u64 builtins[V8_COPIES][2]; /* user addresses of code that is the program's own: first, one past the last */
	u32 entry; /* in that: what enters bytecode */
	u32 entry_bytes;
	u16 function_shared; /* JSFunction: its SharedFunctionInfo */
	u16 shared_numbers; /* words of that, from the second on: numbers that tell it from another */
	u16 shared_flags; /* and another, above its flags */
	u16 bytecode_type; /* of objects that are bytecode */
};
_Static_assert(sizeof(struct v8_instance) <= INSTANCE_BYTES, "v8_instance");
AT(v8_instance, builtins, 0);
AT(v8_instance, entry, 48);
AT(v8_instance, entry_bytes, 52);
AT(v8_instance, function_shared, 56);
AT(v8_instance, shared_numbers, 58);
AT(v8_instance, shared_flags, 60);
AT(v8_instance, bytecode_type, 62);

/* Room: five words below fp and two from it on, then what is read of the function. Instructions lie there before. */
enum v8_room {
	V8_OFFSET = 0,
	V8_BYTECODE = 1,
	V8_FUNCTION = 3,
	V8_MARK = 4,
	V8_CALLER_FP = 5,
	V8_RETURN = 6,
	V8_SHARED = 7,
};
_Static_assert(V8_SHARED + V8_SHARED_WORDS <= RUNTIME_WORDS, "the room is large enough");

/* How much of an interrupted function's frame is there. */
enum v8_built {
	V8_BUILT = 0, /* all of it */
	V8_ENTERED = 1, /* nothing: the return address is at sp, the function in a register */
	V8_PUSHED = 2, /* the same, but that the caller's fp was pushed on it */
	V8_EMPTY = 3, /* fp is its own, the function is still in its register */
	V8_LEFT = 4, /* nothing any more: the return address is at sp */
};

static __always_inline int v8_is_object(u64 word)
{
	return (word & 3) == 1;
}

/* Bytes from the first builtin to `pc`; ~0: it is in none. */
static __always_inline u64 v8_builtin(const struct v8_instance *v, u64 pc)
{
	if (pc >= v->builtins[0][0] && pc < v->builtins[0][1])
		return pc - v->builtins[0][0];
	if (pc >= v->builtins[1][0] && pc < v->builtins[1][1])
		return pc - v->builtins[1][0];
	if (pc >= v->builtins[2][0] && pc < v->builtins[2][1])
		return pc - v->builtins[2][0];
	return ~0ull;
}

#if defined(REG_RDI)
/* Four of the instructions' bytes; those at `ip` are 8 to 11. */
static __always_inline u32 v8_code(const u64 *room, const u32 at)
{
	const u32 shift = (at & 7) * 8;
	u64 word = room[at >> 3] >> shift;

	if (shift > 32)
		word |= room[(at >> 3) + 1] << (64 - shift);
	return (u32)word;
}

#define V8_PUSH_FP 0xe5894855u /* push %rbp; mov %rsp,%rbp */
#define V8_IP 8

/*
 * Functions begin with two or three instructions that look whether they were given up (before version 13), then
 *
 *   push %rbp; mov %rsp,%rbp; push %rsi (the context); push %rdi (the function); push %rax
 *
 * and end with `mov %rbp,%rsp; pop %rbp` (or `leave`), perhaps a comparison of the number of arguments, and a return.
 */
static __always_inline u32 v8_built(unwind_context s, u64 ip)
{
	u64 *code = runtime_room(s);

	if (read_user(s, code, 32, ip - V8_IP))
		return V8_BUILT;
	u32 here = v8_code(code, V8_IP);
	u8 first = (u8)here;

	if (here == V8_PUSH_FP)
		return V8_ENTERED;
	if (first == 0xc3 || first == 0xc2)
		return V8_LEFT;
	if ((here & 0xffffff) == 0xe58948 && (v8_code(code, V8_IP - 4) >> 24) == 0x55)
		return V8_PUSHED;
	if ((here & 0xffffff) == 0x598b48 &&
	    (v8_code(code, V8_IP + 14) == V8_PUSH_FP || v8_code(code, V8_IP + 15) == V8_PUSH_FP))
		return V8_ENTERED;
	if ((here & 0xffff) == 0x43f6 &&
	    (v8_code(code, V8_IP + 10) == V8_PUSH_FP || v8_code(code, V8_IP + 11) == V8_PUSH_FP))
		return V8_ENTERED;
	if (((here & 0xffff) == 0x850f && v8_code(code, V8_IP + 6) == V8_PUSH_FP) ||
	    ((here & 0xffff) == 0x0574 && v8_code(code, V8_IP + 7) == V8_PUSH_FP))
		return V8_ENTERED;
	u32 before = v8_code(code, V8_IP - 4);

	if (before == V8_PUSH_FP && first == 0x56)
		return V8_EMPTY;
	if (v8_code(code, V8_IP - 5) == V8_PUSH_FP && before >> 24 == 0x56)
		return V8_EMPTY;
	if (v8_code(code, V8_IP - 6) == V8_PUSH_FP && before >> 16 == 0x5756)
		return V8_EMPTY;
	/* mov %rbp,%rsp; pop %rbp, then perhaps cmp $n,%rcx, then perhaps jg */
	if (before == 0x5de58b48 || before == 0x5dec8948)
		return V8_LEFT;
	if (before >> 24 == 0xc9 && (here & 0xffffff) == 0xf98348)
		return V8_LEFT;
	u32 long_before = v8_code(code, V8_IP - 8);

	if ((long_before == 0x5de58b48 || long_before >> 24 == 0xc9) && (before & 0xffffff) == 0xf98348)
		return V8_LEFT;
	return V8_BUILT;
}

#define V8_FUNCTION_REGISTER(u) ((u)->regs[REG_RDI])
#else
static __always_inline u32 v8_built(unwind_context s, u64 ip)
{
	return V8_BUILT;
}

#define V8_FUNCTION_REGISTER(u) 0ull
#endif

/* Tells a function from another at the same address; its twin is `v8::function::cookie`. */
static __always_inline u32 v8_cookie(u64 numbers, u64 flags)
{
	u64 hash = ((numbers << 16) ^ (flags >> 32)) * 0x9e3779b97f4a7c15ull;

	return ((u32)(hash >> 34) | 1) & 0x3fffffff;
}

/*
 * A frame of `function` at `pc`, written down; the room holds the frame if `framed`. END_RUNNING; END_TOO_DEEP; STEP_NATIVE if it is none
 * of JavaScript.
 */
static __always_inline int v8_write(unwind_context s, const struct v8_instance *v, u64 function, u64 pc, u64 builtin, const int framed)
{
	struct unwind_state *u = &s->state;
	u64 *room = runtime_room(s);
	u32 where = V8_IN_CODE;
	u32 position = (u32)pc;
	u64 shared;

	if (!v8_is_object(function) || read_user(s, &shared, sizeof(shared), function - 1 + v->function_shared) || !v8_is_object(shared))
		return STEP_NATIVE;
	if (read_user(s, room + V8_SHARED, V8_SHARED_WORDS * 8, shared - 1 + 8))
		return STEP_NATIVE;
	if (builtin != ~0ull) {
		/* its data is the number of a builtin */
		if (!(room[V8_SHARED] & 1))
			return STEP_NATIVE;
		where = framed && !(u32)room[V8_OFFSET] ? V8_IN_BYTECODE : V8_NOWHERE;
		position = where == V8_NOWHERE ? 0 : (u32)(room[V8_OFFSET] >> 32);
		/* interrupted in something that has no frame of its own: machine code may have called it, which user space finds out */
		if (framed && u->leaf) {
			u64 word = 0;
			u16 type = 0;

			if (where == V8_NOWHERE || !v8_is_object(room[V8_BYTECODE]) ||
			    read_user(s, &word, sizeof(word), room[V8_BYTECODE] - 1) ||
			    read_user(s, &type, sizeof(type), word - 1 + 12) || type != v->bytecode_type) {
				where = read_user(s, &word, sizeof(word), u->sp) ? V8_NOWHERE : V8_IN_CODE;
				position = (u32)word - 1;
			}
		}
	}
	u32 cookie = v8_cookie(room[V8_SHARED + (v->shared_numbers & 7)], room[V8_SHARED + (v->shared_flags & 7)]);

	return write_runtime(s, FRAME_V8, shared - 1, position, cookie | where << 30);
}

/* A frame in V8's code: of a function, or of a builtin as any other. */
static __always_inline int step_v8(unwind_context s, const struct v8_instance *v)
{
	struct unwind_state *u = &s->state;
	u64 *room = runtime_room(s);
	u64 pc = u->leaf ? u->ip : u->ip - 1;
	u64 builtin = v8_builtin(v, pc);
	u32 built = u->leaf ? v8_built(s, u->ip) : V8_BUILT;
	int step = STEP_NATIVE;

	if (built == V8_ENTERED || built == V8_PUSHED || built == V8_LEFT) {
		u64 at = u->sp + (built == V8_PUSHED ? 8 : 0);
		u64 caller;

		if (read_user(s, &caller, sizeof(caller), at))
			return END_READ_FAILED;
		if (built == V8_LEFT && builtin == ~0ull)
			step = write_runtime(s, FRAME_V8, NO_OBJECT, (u32)pc, V8_IN_CODE << 30);
		else if (built != V8_LEFT && (builtin == ~0ull || builtin - v->entry < v->entry_bytes))
			step = v8_write(s, v, V8_FUNCTION_REGISTER(u), pc, builtin, 0);
		if (step == STEP_NATIVE)
			step = write_native(s);
		if (step)
			return END_TOO_DEEP;
		u->sp = at + 8;
		u->ip = code_address(caller);
		goto called;
	}
	if (load_fp(s))
		return END_READ_FAILED;
	/* each frame lies above the one that it called */
	if (u->fp < u->sp || read_user(s, room, 56, u->fp - 40))
		return STEP_NATIVE;
	u64 caller = room[V8_RETURN];
	u64 caller_fp = room[V8_CALLER_FP];
	int framed = built != V8_EMPTY;
	u64 function = framed ? room[V8_FUNCTION] : V8_FUNCTION_REGISTER(u);

	if (framed ? (int)(room[V8_MARK] & 1) : builtin == ~0ull || builtin - v->entry < v->entry_bytes)
		step = v8_write(s, v, function, pc, builtin, framed);
	if (step == STEP_NATIVE)
		step = write_native(s);
	if (step)
		return END_TOO_DEEP;
	u->sp = u->fp + 16;
	u->fp = caller_fp;
	u->ip = code_address(caller);
called:
	u->leaf = 0;
	u->guessed = 0;
	return u->ip ? END_RUNNING : END_COMPLETE;
}

#endif
