/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The runtimes whose frames are more than addresses, a header each, written as unwind.h is: for BPF and natively. What a step reads
 * belongs to a target: each frame costs a fixed number of reads, and write_frame() bounds the frames.
 */
#ifndef PROFILER_RUNTIMES_H
#define PROFILER_RUNTIMES_H

#include "hotspot.h"
#include "python.h"
#include "v8.h"

#endif
