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

/* Twin of `native::RawStack`: `bytes` bytes of the target's memory from `start`. */
struct native_stack {
	const u8 *copy;
	u64 start;
	u64 bytes;
	u64 ended; /* out: something above the copy was asked for */
};
AT(native_stack, copy, 0);
AT(native_stack, start, 8);
AT(native_stack, bytes, 16);
AT(native_stack, ended, 24);

struct native_context {
	struct unwind_state state;
	const struct native_tables *tables;
	struct native_stack *stack;
	u64 room[SIGNAL_WORDS];
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

#include "unwind.h"

/*
 * Walks on from `state` until the stack ends, a table is missing, or `capacity` frames are written. Returns enum unwind_end;
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
		if (u->frames >= capacity) {
			end = END_TOO_DEEP;
			break;
		}
		frames[u->frames++] = frame_word(u);
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
