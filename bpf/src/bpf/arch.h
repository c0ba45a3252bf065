/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What differs between processors, one file a side. Each gives the same names:
 *
 *   REG_FP REG_SP REG_BASE  DWARF numbers; REG_BASE is the further register that is followed from frame to frame
 *   LEAF_REGS               registers kept of an interrupted frame, by DWARF number; a power of two
 *   WINDOW_WORDS            of stack read at once; the kernel's saved registers must fit
 *   SIGNAL_WORDS            from the first register that a signal frame saves to the last
 *   take_signal(u, words)   the registers of the frame that a signal interrupted
 *   code_address(word)      a return address without what the processor signs it with
 *
 * and for the kernel half also struct pt_regs, from_user(), is_compat(), is_entry(), take_registers(),
 * PT_REGS_BYTES, STACK_PADDING, THREAD_POINTER (where a task keeps the thread pointer) and THREAD_STRUCT.
 */
#ifndef PROFILER_ARCH_H
#define PROFILER_ARCH_H

#if defined(__TARGET_ARCH_x86) || defined(__x86_64__)
#include "arch_x86.h"
#elif defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#include "arch_arm64.h"
#else
#error "no registers known for this processor"
#endif

#endif
