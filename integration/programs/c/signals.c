/*
 * A thread interrupted every two milliseconds of its CPU time by a signal whose handler works on an alternate stack.
 * A sample in the handler must show the handler, the signal frame, and below it the work that was interrupted.
 * usage: signals [--ms 2000]
 */
#define _GNU_SOURCE
#include <signal.h>

#include "truth.h"

static volatile uint64_t handler_ns;

NOINLINE uint64_t handler_burn(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units; i++) {
		x = x * 2862933555777941757ULL + 3037000493ULL;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE void on_alarm(int signal)
{
	uint64_t before = thread_cpu_ns();

	(void)signal;
	truth_sink += handler_burn(1500000);
	handler_ns += thread_cpu_ns() - before;
}

NOINLINE uint64_t main_burn(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 64; i++) {
		x = (x << 7 | x >> 57) + i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t interrupted_work(uint64_t ms)
{
	uint64_t until = thread_cpu_ns() + ms * 1000000, x = 0;

	while (thread_cpu_ns() < until)
		x += main_burn(4096);
	return x;
}

int main(int argc, char **argv)
{
	static unsigned char stack[64 * 1024];
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct itimerspec every = {.it_interval = {.tv_nsec = 2000000}, .it_value = {.tv_nsec = 2000000}};
	timer_t timer;
	struct group groups[] = {
		{.name = "handler_burn", .stack = "\"handler_burn\",\"on_alarm\",\"...\",\"interrupted_work\",\"main\""},
		{.name = "main_burn", .stack = "\"main_burn\",\"interrupted_work\",\"main\""},
	};

	if (sigaltstack(&alternate, NULL) || sigaction(SIGALRM, &action, NULL) ||
	    timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) || timer_settime(timer, 0, &every, NULL)) {
		perror("signals: cannot set up the timer");
		return 1;
	}
	uint64_t before = thread_cpu_ns();

	truth_sink += interrupted_work(option(argc, argv, "ms", 2000));
	timer_delete(timer);
	groups[0].ns = handler_ns;
	groups[1].ns = thread_cpu_ns() - before - handler_ns;
	report("c/signals", groups, COUNT(groups));
	return 0;
}
