// A function that takes the place of another: one address, one name for a second, another for the next, by a jitdump.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static FILE *dump;

static uint64_t now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void load(const char *name, void *at, uint64_t index)
{
	uint32_t head[2] = {0, 56 + strlen(name) + 17}, ids[2] = {getpid(), getpid()};
	uint64_t time = now(CLOCK_MONOTONIC), words[4] = {(uint64_t)at, (uint64_t)at, 16, index};
	fwrite(head, 8, 1, dump);
	fwrite(&time, 8, 1, dump);
	fwrite(ids, 8, 1, dump);
	fwrite(words, 32, 1, dump);
	fwrite(name, strlen(name) + 1, 1, dump);
	fwrite(at, 16, 1, dump);
	fflush(dump);
}

int main(void)
{
	// push rbp; mov rbp, rsp; mov ecx, edi; loop: imul rax, rax, 7; dec ecx; jnz loop; pop rbp; ret
	unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x89, 0xf9, 0x48, 0x6b, 0xc0, 7, 0xff, 0xc9, 0x75, 0xf8, 0x5d, 0xc3};
	char path[64];
	sprintf(path, "/tmp/jit-%d.dump", getpid());
	dump = fopen(path, "w+");
	uint32_t head[6] = {0x4a695444, 1, 40, 62, 0, getpid()};
	uint64_t times[2] = {now(CLOCK_MONOTONIC), 0};
	fwrite(head, 24, 1, dump);
	fwrite(times, 16, 1, dump);
	fflush(dump);
	mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileno(dump), 0);
	char *place = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(place, code, sizeof code);
	for (int turn = 0; turn < 2; turn++) {
		load(turn ? "takes_its_place" : "was_there_first", place, turn + 1);
		uint64_t end = now(CLOCK_PROCESS_CPUTIME_ID) + 1000000000;
		while (now(CLOCK_PROCESS_CPUTIME_ID) < end)
			((long (*)(int))place)(1000000);
	}
	unlink(path);
}
