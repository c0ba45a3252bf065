/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The few kernel types that the programs read, for CO-RE: only the fields used, relocated at load against the running
 * kernel's BTF, so that one object serves every kernel from 5.10 on.
 */
#ifndef PROFILER_VMLINUX_MIN_H
#define PROFILER_VMLINUX_MIN_H

#include <linux/types.h>
#include <linux/bpf.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;

/* linux/stddef.h has it without the "always" */
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

#include "arch.h"

/* The perf_event program's context: stable user ABI. */
struct bpf_perf_event_data {
	bpf_user_pt_regs_t regs;
	__u64 sample_period;
	__u64 addr;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct mm_struct {
	unsigned long start_code;
	unsigned long start_stack;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct thread_struct {
	THREAD_STRUCT
};

struct task_struct {
	void *stack;
	struct signal_struct *signal;
	unsigned int flags;
	int pid;
	int tgid;
	struct mm_struct *mm;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	u64 start_boottime;
	struct thread_struct thread;
};

#pragma clang attribute pop

#endif
