/*
 * Time in the kernel on behalf of a known user function, as dd if=/dev/zero spends it, beside time in user space.
 * usage: syscalls [--ms 2000]
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/resource.h>

#include "truth.h"

static int zero;
static char buffer[1024 * 1024];

NOINLINE uint64_t read_zeros(uint64_t units)
{
	uint64_t x = 0;

	for (uint64_t i = 0; i < units / 16 + 1; i++)
		x += (uint64_t)read(zero, buffer, sizeof(buffer));
	return x;
}

NOINLINE uint64_t user_work(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 64; i++) {
		x = x * 6364136223846793005ULL + 1;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

int main(int argc, char **argv)
{
	struct group groups[] = {
		{.name = "read_zeros", .run = read_zeros, .weight = 60, .stack = "\"read_zeros\",\"spin_shares\",\"main\""},
		{.name = "user_work", .run = user_work, .weight = 40, .stack = "\"user_work\",\"spin_shares\",\"main\""},
	};
	struct rusage used;

	zero = open("/dev/zero", O_RDONLY);
	if (zero < 0) {
		perror("syscalls: /dev/zero");
		return 1;
	}
	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	getrusage(RUSAGE_SELF, &used);
	report_open("c/syscalls", groups, COUNT(groups));
	printf(",\"system_ns\":%llu}\n",
	       (unsigned long long)used.ru_stime.tv_sec * 1000000000ULL + (unsigned long long)used.ru_stime.tv_usec * 1000ULL);
	return 0;
}
