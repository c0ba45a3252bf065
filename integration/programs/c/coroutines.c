/*
 * Coroutines on stacks of their own (makecontext and swapcontext): their stacks end in __start_context, not in _start.
 * usage: coroutines [--ms 2000]
 */
#include <ucontext.h>

#include "truth.h"

#define STACK_BYTES (64 * 1024)

struct coroutine {
	ucontext_t context, resumer;
	uint64_t units, result;
};

static struct coroutine coroutines[2];

NOINLINE uint64_t co_burn_0(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 64; i++) {
		x = x * 6364136223846793005ULL + 12345;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t co_burn_1(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 64; i++) {
		x = (x << 9 | x >> 55) ^ i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t co_level(int which, uint64_t units)
{
	uint64_t result = which ? co_burn_1(units) : co_burn_0(units);

	KEEP_FRAME();
	return result + 1;
}

NOINLINE void co_entry(int which)
{
	struct coroutine *self = &coroutines[which];

	for (;;) {
		self->result += co_level(which, self->units);
		swapcontext(&self->context, &self->resumer);
	}
}

NOINLINE void create(int which)
{
	ucontext_t *context = &coroutines[which].context;

	if (getcontext(context)) {
		perror("coroutines: getcontext");
		exit(1);
	}
	context->uc_stack.ss_sp = malloc(STACK_BYTES);
	context->uc_stack.ss_size = STACK_BYTES;
	makecontext(context, (void (*)(void))co_entry, 1, which);
}

NOINLINE uint64_t resume(int which, uint64_t units)
{
	coroutines[which].units = units;
	swapcontext(&coroutines[which].resumer, &coroutines[which].context);
	return coroutines[which].result;
}

NOINLINE uint64_t resume_0(uint64_t units)
{
	return resume(0, units) + 1;
}

NOINLINE uint64_t resume_1(uint64_t units)
{
	return resume(1, units) + 1;
}

int main(int argc, char **argv)
{
	struct group groups[] = {
		{.name = "co_burn_0", .run = resume_0, .weight = 60, .stack = "\"co_burn_0\",\"co_level\",\"co_entry\",\"__start_context\""},
		{.name = "co_burn_1", .run = resume_1, .weight = 40, .stack = "\"co_burn_1\",\"co_level\",\"co_entry\",\"__start_context\""},
	};

	create(0);
	create(1);
	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/coroutines", groups, COUNT(groups));
	return 0;
}
