/*
 * What every ground-truth program in C and C++ shares: it runs named groups of work by turns until it has used a given
 * CPU time, measures what each group really used (CLOCK_THREAD_CPUTIME_ID, read outside the measured functions), and
 * prints that as one line of JSON. See ../README.md for the fields.
 */
#ifndef TRUTH_H
#define TRUTH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__GNUC__) && !defined(__clang__)
#define NOINLINE __attribute__((noinline, noclone, noipa))
#else
#define NOINLINE __attribute__((noinline))
#endif

/* After a call, keeps the call from becoming a jump (tail call), so that the frame is there to be found. */
#define KEEP_FRAME() __asm__ volatile("" ::: "memory")

struct group {
	const char *name;              /* the function that stands for the group, as a profile must name it */
	uint64_t (*run)(uint64_t);     /* does so many units of work */
	unsigned weight;               /* planned share; what counts is `ns` */
	const char *stack;             /* true callers, leaf first, as JSON strings: "\"hot_a\",\"main\"" */
	uint64_t ns;                   /* CPU time that the group used */
	uint64_t units;                /* units that take about TURN_NS */
};

/* The result of all work goes here, so that none of it is dead code. */
static volatile uint64_t truth_sink;

#define TURN_NS 400000ULL

static inline uint64_t truth_clock(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static inline uint64_t thread_cpu_ns(void)
{
	return truth_clock(CLOCK_THREAD_CPUTIME_ID);
}

static inline uint64_t truth_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* The value of `--name VALUE` as text, or `otherwise`. */
static inline const char *text_option(int argc, char **argv, const char *name, const char *otherwise)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, name) == 0)
			return argv[i + 1];
	return otherwise;
}

static inline uint64_t option(int argc, char **argv, const char *name, uint64_t otherwise)
{
	const char *text = text_option(argc, argv, name, NULL);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

/*
 * Runs the groups until the calling thread has used `ms` of CPU time here: always the one that is furthest behind its
 * planned share, for a random time around TURN_NS so that no sampling rate keeps step with it.
 */
static __attribute__((unused)) NOINLINE uint64_t spin_shares(struct group *groups, int count, uint64_t ms)
{
	uint64_t random = 0x9e3779b97f4a7c15ULL ^ (uint64_t)getpid(), total = 0, result = 0;
	unsigned weights = 0;

	for (int i = 0; i < count; i++) {
		weights += groups[i].weight;
		if (!groups[i].units)
			groups[i].units = 16;
	}
	while (total < ms * 1000000ULL) {
		struct group *next = &groups[0];
		double most = -1e30;

		for (int i = 0; i < count; i++) {
			double behind = (double)total * groups[i].weight / weights - (double)groups[i].ns +
					(double)groups[i].weight;
			if (groups[i].weight && behind > most) {
				most = behind;
				next = &groups[i];
			}
		}
		uint64_t units = next->units / 2 + truth_random(&random) % next->units + 1;
		uint64_t before = thread_cpu_ns();

		result += next->run(units);

		uint64_t used = thread_cpu_ns() - before;
		next->ns += used;
		total += used;
		/* Approach the number of units that takes TURN_NS, by at most a factor of two a turn. */
		if (used < TURN_NS / 2)
			next->units *= 2;
		else if (used > TURN_NS * 2 && next->units > 1)
			next->units /= 2;
	}
	truth_sink = result;
	return result;
}

/* Prints the part of the report that all programs have, without the closing brace. */
static inline void report_open(const char *program, const struct group *groups, int count)
{
	uint64_t total = 0;

	for (int i = 0; i < count; i++)
		total += groups[i].ns;
	printf("{\"program\":\"%s\",\"pid\":%d,\"cpu_ns\":%llu,\"shares\":{", program, (int)getpid(),
	       (unsigned long long)total);
	for (int i = 0; i < count; i++)
		printf("%s\"%s\":%llu", i ? "," : "", groups[i].name, (unsigned long long)groups[i].ns);
	printf("},\"stacks\":{");
	for (int i = 0, printed = 0; i < count; i++)
		if (groups[i].stack)
			printf("%s\"%s\":[%s]", printed++ ? "," : "", groups[i].name, groups[i].stack);
	printf("}");
}

static inline void report(const char *program, const struct group *groups, int count)
{
	report_open(program, groups, count);
	printf("}\n");
	fflush(stdout);
}

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

#endif
