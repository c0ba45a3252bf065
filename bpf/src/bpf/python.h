/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * CPython: its functions have frames on a stack of their own, a list from the innermost on. A run of them belongs to each frame of the
 * evaluation loop, which is a C function on the native stack:
 *
 *   native                      Python
 *   list.sort                   .
 *   _PyEval_EvalFrameDefault ── <lambda>          run 1
 *   PyObject_Vectorcall         .
 *   builtin_sorted              .
 *   _PyEval_EvalFrameDefault ── inner ── outer    run 2
 *   PyEval_EvalCode             .
 *
 * Where a run ends is told by its last frame (enum python_entry). The list begins at the thread's state, which is found through
 * the thread pointer, so that a thread that has released the interpreter's lock has its frames too.
 */
#ifndef PROFILER_PYTHON_H
#define PROFILER_PYTHON_H

#include "unwind.h"

#define PYTHON_FRAMES_A_CALL 4
#define PYTHON_NO_HOP 0xffff

/* struct python_instance::entry: which frame is a run's last. */
enum python_entry {
	PYTHON_ENTRY_EVERY = 0, /* each: the loop runs once a function (up to 3.10) */
	PYTHON_ENTRY_FLAG = 1, /* the one that says so in a byte (3.11) */
	PYTHON_ENTRY_OWNER = 2, /* the one before a frame without a function, which says so in a byte (from 3.12 on) */
};

/* struct python_instance::thread: where a thread keeps its state. */
enum python_thread {
	PYTHON_KEY_GLIBC = 0, /* under a key of pthread_getspecific */
	PYTHON_KEY_MUSL = 1,
	PYTHON_TLS_FIXED = 2, /* in a variable at a distance from the thread pointer that is known */
	PYTHON_TLS_MODULE = 3, /* in a variable of a library, through the thread's table of such blocks */
};

/* struct python_instance::position */
enum python_position {
	PYTHON_POSITION_NUMBER = 0, /* 32 bits: an index */
	PYTHON_POSITION_ADDRESS = 1, /* an address in the code, in units of two bytes */
};

/* Why there are no frames: the position of a frame whose object is NO_OBJECT. */
enum python_trouble {
	PYTHON_NO_THREAD = 1, /* the thread's state is not where it should be */
	PYTHON_NO_FRAME = 2, /* a frame could not be read */
	PYTHON_TOO_EARLY = 3, /* written by user space: it finished a stack whose interpreter was not known yet */
};

/* Of one interpreter in one address space. Offsets are bytes into CPython's structs. The twin is `python::instance::Raw`. */
struct python_instance {
	u64 key; /* user address of the Py_tss_t {initialised, key}, or of {module, offset} */
	s64 slots; /* from the thread pointer: to the first slot (glibc), to the pointer to slots (musl), to the variable or table */
	s64 more_slots; /* glibc: to the table of blocks of slots, for keys from 32 on; of a module: so much further in its block */
	u8 thread; /* enum python_thread */
	u8 entry; /* enum python_entry */
	u8 position; /* enum python_position */
	u8 tag; /* bits of a pointer to a code object that are no address */
	u8 last_owner; /* PYTHON_ENTRY_OWNER: the largest owner of a frame with a function */
	u8 pad;
	u16 state_thread; /* PyThreadState: pthread_self() */
	u16 state_frame; /* the innermost frame, or what points to it */
	u16 hop; /* where in that; PYTHON_NO_HOP: it is the frame */
	u16 frame_bytes; /* of a frame, those that are read: 120 at most */
	u16 frame_code;
	u16 frame_previous;
	u16 frame_position;
	u16 frame_entry; /* the byte that says whether a run ends */
	u16 code_first; /* of a code object: where its instructions begin */
	u16 code_from; /* what is read of it, from here on */
	u16 code_bytes; /* so many bytes, 120 at most */
	u16 cookie[4]; /* words, from code_from on, that tell one from another */
	u8 pad2[4];
	u64 trampolines; /* where the memory of trampolines begins; 0: there is none */
	u64 trampolines_end; /* not all that lies between need be of them */
};
_Static_assert(sizeof(struct python_instance) <= INSTANCE_BYTES, "python_instance");
AT(python_instance, key, 0);
AT(python_instance, slots, 8);
AT(python_instance, more_slots, 16);
AT(python_instance, thread, 24);
AT(python_instance, entry, 25);
AT(python_instance, position, 26);
AT(python_instance, tag, 27);
AT(python_instance, last_owner, 28);
AT(python_instance, state_thread, 30);
AT(python_instance, state_frame, 32);
AT(python_instance, hop, 34);
AT(python_instance, frame_bytes, 36);
AT(python_instance, frame_code, 38);
AT(python_instance, frame_previous, 40);
AT(python_instance, frame_position, 42);
AT(python_instance, frame_entry, 44);
AT(python_instance, code_first, 46);
AT(python_instance, code_from, 48);
AT(python_instance, code_bytes, 50);
AT(python_instance, cookie, 52);
AT(python_instance, trampolines, 64);
AT(python_instance, trampolines_end, 72);

/* What `-X perf` puts between two frames of the loop, its first eight bytes: `sub $8,%rsp; call *%rcx; add $8,%rsp; ret`, or, in newer builds,
 * `push %rbp; mov %rsp,%rbp; call *%rcx; pop %rbp; ret`. Both call at 4. */
#define PYTHON_TRAMPOLINE 0x8348d1ff08ec8348ull
#define PYTHON_TRAMPOLINE_FP 0xc35dd1ffe5894855ull

static __always_inline u64 python_word(const u64 *room, u32 offset)
{
	return room[offset >> 3 & (RUNTIME_WORDS - 1)];
}

static __always_inline u32 python_part(const u64 *room, u32 offset)
{
	return (u32)(python_word(room, offset) >> (offset & 7) * 8);
}

/* One round of the cookie's hash; its twin is `python::code::mix`. */
static __always_inline u64 python_mix(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
	return hash ^ hash >> 29;
}

/* The address of the present thread's PyThreadState; 0: none. */
static __always_inline u64 python_state(unwind_context s, const struct python_instance *p)
{
	u64 pointer = thread_pointer(s);
	u64 slot = pointer + p->slots;
	u64 found, key;

	if (!pointer)
		return 0;
	if (p->thread == PYTHON_TLS_MODULE) {
		u64 module[2];

		if (read_user(s, module, sizeof(module), p->key) || read_user(s, &slot, sizeof(slot), slot) ||
		    read_user(s, &slot, sizeof(slot), slot + module[0] * 16))
			return 0;
		slot += module[1] + p->more_slots;
	} else if (p->thread != PYTHON_TLS_FIXED) {
		if (read_user(s, &found, sizeof(found), p->key))
			return 0;
		key = found >> 32;
		if (!(u32)found || key >= 1024)
			return 0;
		if (p->thread == PYTHON_KEY_MUSL) {
			if (read_user(s, &slot, sizeof(slot), slot))
				return 0;
			slot += key * 8;
		} else if (key < 32) {
			slot += key * 16 + 8;
		} else {
			if (read_user(s, &slot, sizeof(slot), pointer + p->more_slots + (key >> 5) * 8))
				return 0;
			slot += (key & 31) * 16 + 8;
		}
	}
	if (read_user(s, &found, sizeof(found), slot) || !found)
		return 0;
	/* whatever was found is a state only if it is this thread's */
	if (read_user(s, &slot, sizeof(slot), found + p->state_thread) || slot != pointer)
		return 0;
	return found;
}

/* Finds the innermost frame; 0, or enum python_trouble. */
static __always_inline u32 python_begin(unwind_context s, const struct python_instance *p)
{
	u64 state = python_state(s, p);
	u64 frame;

	if (!state)
		return PYTHON_NO_THREAD;
	if (read_user(s, &frame, sizeof(frame), state + p->state_frame))
		return PYTHON_NO_FRAME;
	if (p->hop != PYTHON_NO_HOP && frame && read_user(s, &frame, sizeof(frame), frame + p->hop))
		return PYTHON_NO_FRAME;
	s->state.cursor = frame;
	return 0;
}

/* The code object that a frame at `position` runs, written down; 0 or END_TOO_DEEP. */
static __always_inline int python_write(unwind_context s, const struct python_instance *p, u64 code, u64 position)
{
	u64 *room = runtime_room(s);
	u64 hash = code;
	u32 cookie = 0;
	u32 bytes = opaque(p->code_bytes & 127);

	if (p->position == PYTHON_POSITION_ADDRESS)
		position = (u64)((s64)(position - code - p->code_first) >> 1);
	if (!read_user(s, room, bytes, code + p->code_from)) {
		hash = python_mix(hash, python_word(room, p->cookie[0]));
		hash = python_mix(hash, python_word(room, p->cookie[1]));
		hash = python_mix(hash, python_word(room, p->cookie[2]));
		hash = python_mix(hash, python_word(room, p->cookie[3]));
		/* 0 is what could not be read */
		cookie = (u32)(hash >> 32) | 1;
	}
	return write_runtime(s, FRAME_CPYTHON, code, (u32)position, cookie);
}

/* Whether a trampoline begins there. */
static __always_inline int is_trampoline(unwind_context s, u64 at)
{
	u64 code;

	return !read_user(s, &code, sizeof(code), at) && (code == PYTHON_TRAMPOLINE || code == PYTHON_TRAMPOLINE_FP);
}

/* Steps over a trampoline: an enum unwind_end, or STEP_NATIVE if ip is in none. */
static __always_inline int step_trampoline(unwind_context s)
{
	struct unwind_state *u = &s->state;
	u64 start = u->ip - 6, code, ip, pushed = 8;

	/* behind the call; an interrupted one may be before it, too: where it has not pushed yet, or has popped, is for frame pointers */
	if (!is_trampoline(s, start)) {
		start = u->ip - 4;
		if (!u->leaf || !is_trampoline(s, start)) {
			start = u->ip;
			pushed = 0;
			if (!u->leaf || !is_trampoline(s, start))
				return STEP_NATIVE;
		}
	}
	if (write_native(s))
		return END_TOO_DEEP;
	if (read_user(s, &ip, sizeof(ip), u->sp + pushed) || read_user(s, &code, sizeof(code), start))
		return END_READ_FAILED;
	if (!ip)
		return END_BAD_FRAME;
	if (pushed && code == PYTHON_TRAMPOLINE_FP)
		u->fp_at = u->sp;
	u->ip = code_address(ip);
	u->sp += pushed + 8;
	u->leaf = 0;
	u->guessed = 0;
	return END_RUNNING;
}

/* A frame of the evaluation loop: itself, then the run of Python's that belongs to it; its caller is found by the native rule. */
static __always_inline int step_python(unwind_context s, const struct python_instance *p)
{
	struct unwind_state *u = &s->state;
	u64 *room = runtime_room(s);

	if (u->ip >= p->trampolines && u->ip < p->trampolines_end) {
		int end = step_trampoline(s);

		if (end != STEP_NATIVE)
			return end;
	}
	if (!u->inside) {
		if (write_native(s))
			return END_TOO_DEEP;
		if (!u->begun) {
			u32 trouble = python_begin(s, p);

			u->begun = 1;
			if (trouble) {
				u->cursor = 0;
				return write_runtime(s, FRAME_CPYTHON, NO_OBJECT, trouble, 0) ? END_TOO_DEEP : STEP_RULE;
			}
		}
		u->inside = 1;
	}
#ifdef __bpf__
#pragma clang loop unroll(disable)
#endif
	for (int i = 0; i < PYTHON_FRAMES_A_CALL; i++) {
		u32 bytes = opaque(p->frame_bytes & 127);
		u64 frame = u->cursor;

		if (!frame)
			goto done;
		if (read_user(s, room, bytes, frame)) {
			u->cursor = 0;
			u->inside = 0;
			return write_runtime(s, FRAME_CPYTHON, NO_OBJECT, PYTHON_NO_FRAME, 0) ? END_TOO_DEEP : STEP_RULE;
		}
		u64 code = python_word(room, p->frame_code) & ~(u64)p->tag;
		u64 position = python_word(room, p->frame_position);
		u32 entry = python_part(room, p->frame_entry) & 0xff;

		u->cursor = python_word(room, p->frame_previous);
		if (p->entry == PYTHON_ENTRY_OWNER && entry > p->last_owner)
			goto done;
		if (p->position == PYTHON_POSITION_NUMBER)
			position = python_part(room, p->frame_position);
		if (!code) {
			/* one that is being made or taken apart */
			if (write_runtime(s, FRAME_CPYTHON, NO_OBJECT, PYTHON_NO_FRAME, 0))
				return END_TOO_DEEP;
		} else if (python_write(s, p, code, position)) {
			return END_TOO_DEEP;
		}
		if (p->entry == PYTHON_ENTRY_EVERY || (p->entry == PYTHON_ENTRY_FLAG && entry))
			goto done;
	}
	return STEP_AGAIN;
done:
	u->inside = 0;
	return STEP_RULE;
}

#endif
