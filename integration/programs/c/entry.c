/*
 * Its entry point is described like any other function, as Zig's is: nothing says that it was called by nobody.
 * usage: entry [--ms 2000]; links with -nostartfiles
 */
#include "truth.h"

__asm__(".globl _start\n"
	".type _start, @function\n"
	"_start:\n"
	"	.cfi_startproc\n"
	"	mov (%rsp), %rsi\n"
	"	lea 8(%rsp), %rdx\n"
	"	lea main(%rip), %rdi\n"
	"	xor %ecx, %ecx\n"
	"	xor %r8d, %r8d\n"
	"	xor %r9d, %r9d\n"
	"	and $-16, %rsp\n"
	"	push %rax\n"
	"	push %rsp\n"
	"	call *__libc_start_main@GOTPCREL(%rip)\n"
	"	hlt\n"
	"	.cfi_endproc\n"
	".size _start, .-_start\n");

NOINLINE uint64_t first_work(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 16; i++) {
		x = x * 31 + i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t second_work(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 16; i++) {
		x = x * 37 + i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

int main(int argc, char **argv)
{
	struct group groups[] = {
		{.name = "first_work", .run = first_work, .weight = 70,
		 .stack = "\"first_work\",\"spin_shares\",\"main\""},
		{.name = "second_work", .run = second_work, .weight = 30,
		 .stack = "\"second_work\",\"spin_shares\",\"main\""},
	};

	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/entry", groups, COUNT(groups));
	return 0;
}
