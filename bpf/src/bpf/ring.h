/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The ring of samples, and when its reader is woken. */
#ifndef PROFILER_RING_H
#define PROFILER_RING_H

#include "arch.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 21);
} samples SEC(".maps");

/* Bytes in the ring from which the reader is woken; a quarter of it, set before load. */
const volatile u32 ring_wake_bytes = 1 << 19;
/* A CPU asks again only after this long, ns: a reader that does not come is not to cost every sample a call. */
#define RING_WAKE_GAP 1000000

/*
 * The reader polls, five times a second. It is woken when there is something to learn before this process's next sample, and
 * before the ring is full. `woken` is when this CPU last did the latter.
 */
static __always_inline u64 ring_flags(u32 stack_bytes, u64 now, u64 *woken)
{
	if (stack_bytes)
		return BPF_RB_FORCE_WAKEUP;
	if (bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA) < ring_wake_bytes || now - *woken < RING_WAKE_GAP)
		return BPF_RB_NO_WAKEUP;
	*woken = now;
	return BPF_RB_FORCE_WAKEUP;
}

#endif
