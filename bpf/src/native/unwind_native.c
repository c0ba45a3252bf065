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

/* Twin of `native::RawStack`: `bytes` bytes of the target's memory from `start`. */
struct native_stack {
	const u8 *copy;
	u64 start;
	u64 bytes;
	u64 ended; /* out: something above the copy was asked for */
};

struct native_context {
	struct unwind_state state;
	const struct native_tables *tables;
};

static _Thread_local struct native_stack *current_stack;

static int read_copy(void *dst, u64 len, u64 address)
{
	struct native_stack *s = current_stack;
	u64 offset = address - s->start;

	if (address < s->start || offset > s->bytes || len > s->bytes - offset) {
		s->ended = address >= s->start && offset < s->bytes + (1 << 20);
		return -14;
	}
	memcpy(dst, s->copy + offset, len);
	return 0;
}

#define UNWIND_CONTEXT struct native_context *
#define OPAQUE(x) ((void)(x))
#define read_user(dst, len, address) read_copy(dst, len, address)
#define read_stack(s, dst, words, address) ((void)(s), read_copy(dst, (words) * 8, address))
#define get_mapping(s, i) ((i) < (s)->tables->mapping_count ? &(s)->tables->mappings[i] : 0)
#define get_executable(s, i) ((i) < (s)->tables->executable_count ? &(s)->tables->executables[i] : 0)
#define get_row_page(s, i) ((i) < (s)->tables->row_page_count ? &(s)->tables->row_pages[i] : 0)
#define get_rule(s, i) ((i) < (s)->tables->rule_count ? &(s)->tables->rules[i] : 0)
#define ROW_SEARCH_BEGIN(s, slab)                  \
	if ((slab) >= (s)->tables->slab_count)     \
		return 0;
#define get_row(s, slab, i, out) \
	((i) < SLAB_ROWS && (s)->tables->slabs[slab] ? (*(out) = (s)->tables->slabs[slab][i], 0) : 1)

/* The tables are only read here. */
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"
#include "unwind.h"

/*
 * Walks on from `state` until the stack ends, a table is missing, or `capacity` frames are written. Returns enum unwind_end;
 * on END_NO_MAPPING and END_NOT_LOADED `state` is the frame that could not be looked up, so that the walk can be resumed.
 */
u32 profiler_unwind_native(struct unwind_state *state, const struct native_tables *tables, struct native_stack *stack,
			   u64 *frames, u32 capacity)
{
	struct native_context c = { .state = *state, .tables = tables };
	struct unwind_state *u = &c.state;
	u32 end = END_RUNNING;

	current_stack = stack;
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
		end = step_rule(&c, u, r);
	}
	if (end == END_READ_FAILED && stack->ended)
		end = END_COPY_TOO_SHORT;
	current_stack = 0;
	*state = *u;
	return end;
}
