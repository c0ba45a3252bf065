/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * arm64: a call leaves the return address in the link register, x30. A function that calls saves it beside the frame pointer,
 * x29, as the frame record {x29, x30}; a leaf may save neither, so its rule says "in a register" (RA_REGISTER, 30).
 *
 * Only the C is here: the Rust twins of these layouts are x86-64's.
 */

/* DWARF numbers (AADWARF64, table 4): x0-x30, sp */
#define REG_FP 29
#define REG_LR 30
#define REG_SP 31
#define REG_BASE 19 /* the first register that calls preserve */
#define LEAF_REGS 32
#define WINDOW_WORDS 64
#define SIGNAL_WORDS 33

#include "abi.h"

/* rt_sigframe, uc_mcontext from `regs` on: x0-x30 sp pc */
static __always_inline void take_signal(struct unwind_state *u, const u64 *g)
{
	for (int i = 0; i < 32; i++)
		u->regs[i] = g[i];
	u->fp = g[REG_FP];
	u->rbx = g[REG_BASE];
	u->sp = g[REG_SP];
	u->ip = g[32];
}

/*
 * Pointer authentication signs return addresses in the bits above the address: what `xpaclri` takes off. Code is mapped above
 * 2^48 only by programs that ask for it by address.
 */
static __always_inline u64 code_address(u64 word)
{
	return word & ((1ull << 48) - 1);
}

#ifdef __bpf__
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp, pc, pstate;
};
/* Begins with these; what follows differs from kernel to kernel. */
struct pt_regs {
	struct user_pt_regs user_regs;
};
typedef struct user_pt_regs bpf_user_pt_regs_t;

#define PT_REGS_BYTES bpf_core_type_size(struct pt_regs)
#define STACK_PADDING 0
#define PSTATE_MODE 0xf /* 0: EL0 */
#define PSTATE_COMPAT 0x10

#define THREAD_POINTER thread.uw.tp_value
#define THREAD_STRUCT           \
	struct {                \
		unsigned long tp_value; \
	} uw;

static __always_inline int from_user(const bpf_user_pt_regs_t *r)
{
	return (r->pstate & PSTATE_MODE) == 0;
}

static __always_inline int is_compat(const bpf_user_pt_regs_t *r)
{
	return (r->pstate & PSTATE_COMPAT) != 0;
}

static __always_inline int is_entry(const bpf_user_pt_regs_t *r)
{
	return 1;
}

static __always_inline void take_registers(struct unwind_state *u, const bpf_user_pt_regs_t *r)
{
	/* or it is read behind a pointer into the context, which verifiers refuse */
#pragma clang loop unroll(full)
	for (int i = 0; i < 31; i++)
		u->regs[i] = r->regs[i];
	u->regs[REG_SP] = r->sp;
	u->ip = r->pc;
	u->sp = r->sp;
	u->fp = r->regs[REG_FP];
	u->rbx = r->regs[REG_BASE];
}
#endif
