/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* x86-64: the return address is on the stack, above the frame; rbp is the frame pointer. */

/* DWARF numbers (System V ABI, AMD64 supplement, figure 3.36) */
#define REG_RAX 0
#define REG_RDX 1
#define REG_RCX 2
#define REG_RBX 3
#define REG_RSI 4
#define REG_RDI 5
#define REG_FP 6
#define REG_SP 7
#define REG_BASE REG_RBX /* ld.so's lazy binding finds its frame through it */
#define LEAF_REGS 16
#define WINDOW_WORDS 128
#define SIGNAL_WORDS 17

#include "abi.h"

/* rt_sigframe, mcontext.gregs: r8-r15 rdi rsi rbp rbx rdx rax rcx rsp rip */
static __always_inline void take_signal(struct unwind_state *u, const u64 *g)
{
	for (int i = 0; i < 8; i++)
		u->regs[8 + i] = g[i];
	u->regs[REG_RDI] = g[8];
	u->regs[REG_RSI] = g[9];
	u->regs[REG_FP] = g[10];
	u->regs[REG_RBX] = g[11];
	u->regs[REG_RDX] = g[12];
	u->regs[REG_RAX] = g[13];
	u->regs[REG_RCX] = g[14];
	u->regs[REG_SP] = g[15];
	u->fp = g[10];
	u->rbx = g[11];
	u->sp = g[15];
	u->ip = g[16];
}

static __always_inline u64 code_address(u64 word)
{
	return word;
}

#ifdef __bpf__
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
typedef struct pt_regs bpf_user_pt_regs_t;

#define PT_REGS_BYTES sizeof(struct pt_regs) /* the same in all kernels */
#define USER_CS 0x33
#define USER32_CS 0x23
#define STACK_PADDING 16 /* above the registers on a kernel stack, where the kernel can do FRED (CONFIG_X86_FRED, from 6.9 on) */

#define THREAD_POINTER thread.fsbase
#define THREAD_STRUCT unsigned long fsbase;

static __always_inline int from_user(const bpf_user_pt_regs_t *r)
{
	return (r->cs & 3) != 0;
}

static __always_inline int is_compat(const bpf_user_pt_regs_t *r)
{
	return r->cs == USER32_CS;
}

/* What was read from a kernel stack is what an entry from user space left there. */
static __always_inline int is_entry(const bpf_user_pt_regs_t *r)
{
	return r->cs == USER_CS || r->cs == USER32_CS;
}

static __always_inline void take_registers(struct unwind_state *u, const bpf_user_pt_regs_t *r)
{
	u->regs[0] = r->ax;
	u->regs[1] = r->dx;
	u->regs[2] = r->cx;
	u->regs[3] = r->bx;
	u->regs[4] = r->si;
	u->regs[5] = r->di;
	u->regs[6] = r->bp;
	u->regs[7] = r->sp;
	u->regs[8] = r->r8;
	u->regs[9] = r->r9;
	u->regs[10] = r->r10;
	u->regs[11] = r->r11;
	u->regs[12] = r->r12;
	u->regs[13] = r->r13;
	u->regs[14] = r->r14;
	u->regs[15] = r->r15;
	u->ip = r->ip;
	u->sp = r->sp;
	u->fp = r->bp;
	u->rbx = r->bx;
}
#endif
