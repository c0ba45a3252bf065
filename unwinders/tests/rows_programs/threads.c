/* Stacks of every kind that C makes: library callbacks, signal handlers on their own stack, threads, vfork, PLT, vDSO, alloca. */
#define _GNU_SOURCE
#include <alloca.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile double sink;
static volatile int stop;

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

__attribute__((noinline)) static double recurse(int n)
{
	volatile char pad[48];
	pad[0] = (char)n;
	if (n == 0) {
		double x = 0;
		for (int i = 0; i < 3000000; i++)
			x += sin(i) * cos(x);
		return x;
	}
	return recurse(n - 1) + pad[0];
}

__attribute__((noinline)) static double dynamic(int n)
{
	char *area = alloca(n + 64);
	memset(area, n, n);
	sink += area[n / 2];
	return recurse(n % 7) + area[0];
}

static void handler(int signal)
{
	(void)signal;
	sink += recurse(3);
}

static void *sorter(void *unused)
{
	int values[20000];
	(void)unused;
	for (;;) {
		for (int i = 0; i < 20000; i++)
			values[i] = i * 7919 % 20000;
		qsort(values, 20000, sizeof *values, compare);
	}
}

static void *signalled(void *unused)
{
	stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
	(void)unused;
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &action, NULL);
	for (;;)
		raise(SIGUSR1);
}

static void *clocks(void *unused)
{
	struct timespec now;
	(void)unused;
	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		sink += now.tv_nsec;
	}
}

static void *dynamics(void *unused)
{
	(void)unused;
	for (int n = 1;; n = n % 500 + 1)
		sink += dynamic(n);
}

int main(void)
{
	pthread_t thread;
	void *(*bodies[])(void *) = {sorter, signalled, clocks, dynamics};
	for (int i = 0; i < 4; i++)
		pthread_create(&thread, NULL, bodies[i], NULL);
	for (;;) {
		pid_t pid = vfork();
		if (pid == 0)
			_exit(0);
		waitpid(pid, NULL, 0);
		char text[64];
		snprintf(text, sizeof text, "%f", recurse(900));
		sink += text[0];
	}
}
