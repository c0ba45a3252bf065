/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Made records into the ring of samples, as fast as asked, for tests and measurements of what reads it: BPF_PROG_TEST_RUN.
 * The ring is that of the kernel half, which is loaded beside this object.
 */
#include "vmlinux_min.h"
#include <bpf/bpf_helpers.h>

#define ONE_RING /* the first source's */
#include "ring.h"

#define FEED_RECORD_BYTES 1016
#define FEED_BURST 64 /* records a run at most */

struct feed_record {
	u32 bytes;
	u32 pad;
	union {
		struct sample sample;
		u8 record[FEED_RECORD_BYTES];
	};
};
_Static_assert(sizeof(struct feed_record) == 1024, "feed.rs");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* records, set before load */
	__type(key, u32);
	__type(value, struct feed_record);
} records SEC(".maps");

struct feed_input {
	u32 first; /* in records */
	u32 count;
	u32 sent; /* out */
	u32 full; /* out: refused since the ring was full */
	u64 woken; /* in and out: when the reader was last woken for want of room */
};
_Static_assert(sizeof(struct feed_input) == 24, "feed.rs");
AT(feed_input, first, 0);
AT(feed_input, count, 4);
AT(feed_input, sent, 8);
AT(feed_input, full, 12);
AT(feed_input, woken, 16);

SEC("syscall")
int feed(struct feed_input *in)
{
	u32 first = in->first, count = in->count, sent = 0, full = 0;
	u64 woken = in->woken;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < FEED_BURST; i++) {
		if (i >= count)
			break;
		u32 key = first + i;
		struct feed_record *r = bpf_map_lookup_elem(&records, &key);
		if (!r)
			break;
		u64 bytes = r->bytes;
		asm volatile("" : "+r"(bytes));
		if (bytes < sizeof(struct sample) || bytes > FEED_RECORD_BYTES)
			break;
		r->sample.time = bpf_ktime_get_ns();
		if (bpf_ringbuf_output(&samples, r->record, bytes, ring_flags(&samples, 0, r->sample.time, &woken)))
			full++;
		else
			sent++;
	}
	in->sent = sent;
	in->full = full;
	in->woken = woken;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
