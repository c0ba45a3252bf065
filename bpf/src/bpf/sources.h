/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What makes samples, and what each source has for itself on each CPU: scratch memory, counters, a ring.
 *
 *   clock        a perf event's timer     worth its period, ns of CPU time
 *   event        a perf event's overflow  worth the period that the kernel tells
 *   counted      each event               worth the events since the sample before
 *
 * Counted here are tracepoints, which have no overflow, and software events that are to be sampled so often a second: what the kernel
 * makes of those is neither so many samples nor the right worth (7 samples that stood for 2.0 M of 0.6 M page faults).
 *
 * A clock's tick may interrupt another program of ours. The kernel then runs no second one on this CPU (bpf_prog_active), and
 * tells nobody. So the expiry of a clock's timer is noted where it happens, and the program that was interrupted takes the sample:
 * its stack is the one that the tick met.
 */
#ifndef PROFILER_SOURCES_H
#define PROFILER_SOURCES_H

/* Set before load. */
const volatile u32 source_count = 1;
const volatile u32 clock_sources = 1; /* a bit for each source that is a clock */
const volatile u32 note_ticks = 0; /* there are clocks and others */

static __always_inline int is_clock(const u32 source)
{
	return clock_sources >> source & 1;
}

static __always_inline u32 slot_of(const u32 source)
{
	return bpf_get_smp_processor_id() * source_count + source;
}

static __always_inline struct scratch *scratch_of(const u32 source)
{
	u32 slot = slot_of(source);

	return bpf_map_lookup_elem(&scratches, &slot);
}

/* Hands the record in `s` to the ring of `source`, whose counters and clock are in `own`. */
static __always_inline void send(struct scratch *s, struct scratch *own, const u32 source, u64 size)
{
	void *ring = ring_of(source);

	s->sample.source = source;
	size = opaque(size);
	if (size > sizeof(struct sample) + BODY_BYTES) {
		own->counters[COUNT_OVERSIZE]++;
		return;
	}
	if (bpf_ringbuf_output(ring, &s->sample, size, ring_flags(ring, s->sample.stack_bytes || s->news, s->sample.time, &own->woken)))
		own->counters[COUNT_RING_FULL]++;
	else
		own->counters[COUNT_SAMPLES]++;
}

/* An event that is not sampled, by enum refusal. */
static __always_inline void count_refused(struct scratch *own, u32 refused)
{
	if (refused < REFUSED_BY_RULE) {
		own->counters[COUNT_FILTERED]++;
		return;
	}
	own->counters[COUNT_RULED_OUT]++;
	own->ruled_out[opaque(refused - REFUSED_BY_RULE) & (RULE_LANES - 1)]++;
}

/* Whether a tick of the clock whose scratch this is met the present task and was not sampled; not any more. */
static __always_inline int take_tick(struct scratch *clock, u64 ids)
{
	if (!clock->tick_due || clock->tick_ids != ids)
		return 0;
	clock->tick_due = 0;
	return 1;
}

/* The samples of ticks that the kernel refused since we run: those of this stack. `size` 0: this process is not to be sampled. */
static __always_inline void make_good(struct scratch *s, const u32 source, u64 ids, u64 size)
{
	if (!note_ticks || is_clock(source))
		return;
#pragma clang loop unroll(full)
	for (u32 i = 0; i < MAX_SOURCES; i++) {
		if (!is_clock(i))
			continue;
		struct scratch *clock = scratch_of(i);
		if (!clock || !take_tick(clock, ids))
			continue;
		if (!size) {
			count_refused(clock, s->refused);
			continue;
		}
		s->sample.value = clock->period;
		clock->counters[COUNT_MADE_GOOD]++;
		send(s, clock, i, size);
	}
}

/*
 * An event that is counted here: 0, or what a sample is worth now. So many events apart, or, with a gap, so many ns: then the
 * distance in events follows their rate, and is left early when they become few.
 */
static __always_inline u64 count_hit(struct scratch *s)
{
	u64 hits = s->hits + 1;
	u64 now, elapsed, wanted;

	s->hits = hits;
	if (!s->gap) {
		if (hits < s->period)
			return 0;
		s->hits = 0;
		return hits;
	}
	if (hits < s->period && hits & 7)
		return 0;
	now = bpf_ktime_get_ns();
	elapsed = now - s->sampled_at;
	if (hits < s->period && elapsed < s->gap * 4)
		return 0;
	/* half way to the distance that would have been right */
	wanted = elapsed ? hits * s->gap / elapsed : hits * 2;
	/* two events close together are no rate: it rises by half a sample, not at once */
	if (wanted > s->period * 2 + 1)
		wanted = s->period * 2 + 1;
	s->period = (s->period + wanted) / 2;
	if (!s->period)
		s->period = 1;
	s->sampled_at = now;
	s->hits = 0;
	return hits;
}

#endif
