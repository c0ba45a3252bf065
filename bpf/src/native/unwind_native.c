/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The unwinder's core, compiled for the host: walks a copy of a stack with the tables that the kernel half uses.
 */
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#include "arch.h"

/* Twin of `native::RawTables`. */
struct native_tables {
	const struct mapping *mappings;
	u64 mapping_count;
	const struct executable *executables;
	u64 executable_count;
	const struct row_page *row_pages;
	u64 row_page_count;
	const u32 *const *slabs;
	u64 slab_count;
	const struct unwind_rule *rules;
	u64 rule_count;
	const struct instance *instances;
	u64 instance_count;
};
AT(native_tables, mappings, 0);
AT(native_tables, mapping_count, 8);
AT(native_tables, executables, 16);
AT(native_tables, executable_count, 24);
AT(native_tables, row_pages, 32);
AT(native_tables, row_page_count, 40);
AT(native_tables, slabs, 48);
AT(native_tables, slab_count, 56);
AT(native_tables, rules, 64);
AT(native_tables, rule_count, 72);
AT(native_tables, instances, 80);
AT(native_tables, instance_count, 88);

/* Twin of `native::RawStack`: `bytes` bytes of the target's memory from `start`. */
struct native_stack {
	const u8 *copy;
	u64 start;
	u64 bytes;
	u64 ended; /* out: something above the copy was asked for */
	/* Reads what is not in the copy: 0 or negative. None: that cannot be had, and runtimes' frames are left out. */
	int (*read)(void *memory, u64 address, u8 *bytes, u64 length);
	void *memory;
};
AT(native_stack, copy, 0);
AT(native_stack, start, 8);
AT(native_stack, bytes, 16);
AT(native_stack, ended, 24);
AT(native_stack, read, 32);
AT(native_stack, memory, 40);

struct native_context {
	struct unwind_state state;
	const struct native_tables *tables;
	struct native_stack *stack;
	u64 room[SIGNAL_WORDS];
	u64 runtime[RUNTIME_WORDS];
	u64 *frames;
	u64 capacity; /* words */
	u32 in_runtime; /* a runtime's step reads, of which the copy has no part */
};

typedef struct native_context *unwind_context;
typedef const u32 row_slab;

static __always_inline u64 opaque(u64 x)
{
	return x;
}

static int read_user(unwind_context s, void *dst, u64 len, u64 address)
{
	struct native_stack *stack = s->stack;
	u64 offset = address - stack->start;

	if (address < stack->start || offset > stack->bytes || len > stack->bytes - offset) {
		if (s->in_runtime)
			return stack->read(stack->memory, address, dst, len);
		stack->ended = address >= stack->start && offset < stack->bytes + (1 << 20);
		return -14;
	}
	memcpy(dst, stack->copy + offset, len);
	return 0;
}

static __always_inline int read_stack(unwind_context s, u64 *dst, u32 words, u64 address)
{
	return read_user(s, dst, words * 8, address);
}

static __always_inline u64 *signal_room(unwind_context s)
{
	return s->room;
}

static __always_inline const struct mapping *get_mapping(unwind_context s, u64 i)
{
	return i < s->tables->mapping_count ? &s->tables->mappings[i] : 0;
}

static __always_inline const struct executable *get_executable(unwind_context s, u64 i)
{
	return i < s->tables->executable_count ? &s->tables->executables[i] : 0;
}

static __always_inline const struct row_page *get_row_page(unwind_context s, u64 i)
{
	return i < s->tables->row_page_count ? &s->tables->row_pages[i] : 0;
}

static __always_inline const struct unwind_rule *get_rule(unwind_context s, u64 i)
{
	return i < s->tables->rule_count ? &s->tables->rules[i] : 0;
}

static __always_inline row_slab *get_slab(unwind_context s, u64 i)
{
	return i < s->tables->slab_count ? s->tables->slabs[i] : 0;
}

static __always_inline int get_row(row_slab *slab, u32 i, u32 *row)
{
	if (i >= SLAB_ROWS)
		return -1;
	*row = slab[i];
	return 0;
}

static __always_inline u64 *runtime_room(unwind_context s)
{
	return s->runtime;
}

static __always_inline u64 thread_pointer(unwind_context s)
{
	return s->state.thread_pointer;
}

static __always_inline int write_frame(unwind_context s, u32 words, u64 first, u64 second)
{
	struct unwind_state *u = &s->state;

	if (u->frames + words > s->capacity || u->depth >= MAX_USER_FRAMES)
		return END_TOO_DEEP;
	s->frames[u->frames++] = first;
	if (words == 2)
		s->frames[u->frames++] = second;
	u->depth++;
	return 0;
}

#include "unwind.h"
#include "runtimes.h"

static int step_hotspot(unwind_context s, const struct hotspot_instance *h)
{
#ifdef HOTSPOT_PARTS
	int part = hotspot_locate(s, h);

	if (part == HOTSPOT_PART_INTERPRETED)
		return hotspot_interpreted(s, h);
	if (part == HOTSPOT_PART_METHOD)
		return hotspot_method(s, h);
	if (part == HOTSPOT_PART_METHOD_LEAF) {
		hotspot_room(s)->phase = hotspot_phase(s);
		return hotspot_method_leaf(s, h);
	}
	if (part == HOTSPOT_PART_STUB)
		return hotspot_stub(s, h);
	if (part == HOTSPOT_PART_STUB_LEAF)
		return hotspot_stub_leaf(s, h);
	return part;
#else
	return STEP_NATIVE;
#endif
}

/* The step of the runtime that the state's `unwinder` names. */
static int step_runtime(unwind_context s)
{
	u64 index = UNWINDER_INSTANCE(s->state.unwinder);
	int step = STEP_NATIVE;

	if (index >= s->tables->instance_count || !s->stack->read)
		return STEP_NATIVE;
	const struct instance *instance = &s->tables->instances[index];

	s->in_runtime = 1;
	if (UNWINDER_KIND(s->state.unwinder) == FRAME_CPYTHON)
		step = step_python(s, (const struct python_instance *)instance);
	else if (UNWINDER_KIND(s->state.unwinder) == FRAME_HOTSPOT)
		step = step_hotspot(s, (const struct hotspot_instance *)instance);
	else if (UNWINDER_KIND(s->state.unwinder) == FRAME_V8)
		step = step_v8(s, (const struct v8_instance *)instance);
	s->in_runtime = 0;
	return step;
}

/*
 * Walks on from `state` until the stack ends, a table is missing, or `capacity` words of frames are written. Returns enum unwind_end;
 * on END_NO_MAPPING and END_NOT_LOADED `state` is the frame that could not be looked up, so that the walk can be resumed.
 */
u32 profiler_unwind_native(struct unwind_state *state, const struct native_tables *tables, struct native_stack *stack,
			   u64 *frames, u32 capacity)
{
	struct native_context c;
	struct unwind_state *u = &c.state;
	u32 end = END_RUNNING;

	c.state = *state;
	c.tables = tables;
	c.stack = stack;
	c.frames = frames;
	c.capacity = capacity;
	c.in_runtime = 0;
	while (end == END_RUNNING) {
		u32 rule = find_rule(&c, u->leaf ? u->ip : u->ip - 1);

		if (rule == RULE_NO_MAPPING) {
			end = END_NO_MAPPING;
			break;
		}
		if (rule == RULE_NOT_LOADED) {
			end = END_NOT_LOADED;
			break;
		}
		int step = STEP_NATIVE;

		if (u->unwinder) {
			step = step_runtime(&c);
			if (step == STEP_AGAIN)
				continue;
			if (step != STEP_RULE && step != STEP_NATIVE) {
				end = step;
				continue;
			}
		}
		if (step == STEP_NATIVE && write_native(&c)) {
			end = END_TOO_DEEP;
			break;
		}
		const struct unwind_rule *r = get_rule(&c, rule);
		if (!r) {
			end = END_BAD_FRAME;
			break;
		}
		end = step_rule(&c, r);
	}
	if (end == END_READ_FAILED && stack->ended)
		end = END_COPY_TOO_SHORT;
	*state = *u;
	return end;
}
