/*
 * Calls through the PLT so often that samples land in its stubs, and resolves lazily bound functions over and over by
 * closing and reopening a library. Built with -z lazy, -z now and -fno-plt.
 * usage: plt --library FILE.so [--ms 2000]
 */
#include <dlfcn.h>

#include "truth.h"

extern uint64_t plt_add(uint64_t a, uint64_t b);
extern uint64_t plt_mix(uint64_t a, uint64_t b);

static const char *library_path;

NOINLINE uint64_t call_stubs(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 8; i++) {
		x = plt_add(x, i);
		x = plt_mix(x, i);
	}
	return x;
}

NOINLINE uint64_t bind_again(uint64_t units)
{
	uint64_t x = 0;

	for (uint64_t i = 0; i < units / 16 + 1; i++) {
		void *library = dlopen(library_path, RTLD_LAZY | RTLD_LOCAL);
		uint64_t (*all)(uint64_t) = library ? (uint64_t(*)(uint64_t))dlsym(library, "lazy_all") : NULL;

		if (!all) {
			fprintf(stderr, "plt: %s\n", dlerror());
			exit(1);
		}
		x += all(i);
		dlclose(library);
	}
	return x;
}

int main(int argc, char **argv)
{
	struct group groups[] = {
		{.name = "call_stubs", .run = call_stubs, .weight = 70, .stack = "\"call_stubs\",\"spin_shares\",\"main\""},
		{.name = "bind_again", .run = bind_again, .weight = 30, .stack = "\"bind_again\",\"spin_shares\",\"main\""},
	};

	library_path = text_option(argc, argv, "library", "./lazy.so");
	spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
	report("c/plt", groups, COUNT(groups));
	return 0;
}
