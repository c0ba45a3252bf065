/* Threads that are in their own code, or in a signal handler of their own, nearly always. */
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

static volatile double sink;

__attribute__((noinline)) static double recurse(int n)
{
	volatile char pad[48];
	pad[0] = (char)n;
	if (n == 0) {
		double x = 0;
		for (int i = 0; i < 30000000; i++)
			x += i * x + 1;
		return x;
	}
	return recurse(n - 1) + pad[0];
}

static void handler(int signal)
{
	(void)signal;
	sink += recurse(3);
}

static void *spin(void *unused)
{
	(void)unused;
	for (;;)
		sink += recurse(20);
}

int main(void)
{
	pthread_t thread;
	struct itimerval interval = {{0, 200000}, {0, 200000}};
	signal(SIGALRM, handler);
	pthread_create(&thread, 0, spin, 0);
	setitimer(ITIMER_REAL, &interval, 0);
	for (;;)
		sink += recurse(30);
}
