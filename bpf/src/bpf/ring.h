/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The rings of samples, and when their reader is woken. */
#ifndef PROFILER_RING_H
#define PROFILER_RING_H

#include "arch.h"

/* One for each source, so that a flood of one leaves the others' room alone. Sized before load; those of no source are not made. */
#define RING(name)                                  \
	struct {                                    \
		__uint(type, BPF_MAP_TYPE_RINGBUF); \
		__uint(max_entries, 1 << 16);       \
	} name SEC(".maps")

RING(samples);
#ifndef ONE_RING
RING(samples_1);
RING(samples_2);
RING(samples_3);
RING(samples_4);
RING(samples_5);
RING(samples_6);
RING(samples_7);
_Static_assert(MAX_SOURCES == 8, "a ring each");

/* `source` is a constant wherever this is inlined: a verifier wants one map a call. */
static __always_inline void *ring_of(const u32 source)
{
	switch (source) {
	case 0:
		return &samples;
	case 1:
		return &samples_1;
	case 2:
		return &samples_2;
	case 3:
		return &samples_3;
	case 4:
		return &samples_4;
	case 5:
		return &samples_5;
	case 6:
		return &samples_6;
	default:
		return &samples_7;
	}
}
#endif

/* Bytes in a ring from which the reader is woken; a quarter of it, set before load. */
const volatile u32 ring_wake_bytes = 1 << 19;
/* A CPU asks again only after this long, ns: a reader that does not come is not to cost every sample a call. */
#define RING_WAKE_GAP 1000000

/*
 * The reader polls, five times a second. It is woken when there is something to learn before this process's next sample, and
 * before the ring is full. `woken` is when this CPU last did the latter for this ring.
 */
static __always_inline u64 ring_flags(void *ring, u32 news, u64 now, u64 *woken)
{
	if (news)
		return BPF_RB_FORCE_WAKEUP;
	if (bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) < ring_wake_bytes || now - *woken < RING_WAKE_GAP)
		return BPF_RB_NO_WAKEUP;
	*woken = now;
	return BPF_RB_FORCE_WAKEUP;
}

#endif
