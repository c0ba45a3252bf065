/*
 * Opens a library after a while and works in it: its mapping appears when the process is long known.
 * usage: plugin_host --plugin FILE.so [--ms 2000]
 */
#include <dlfcn.h>

#include "truth.h"

static uint64_t (*plugin)(uint64_t);

NOINLINE uint64_t host_work(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t i = 0; i < units * 16; i++) {
		x = x * 31 + i;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

NOINLINE uint64_t call_plugin(uint64_t units)
{
	uint64_t result = plugin(units);

	KEEP_FRAME();
	return result + 1;
}

int main(int argc, char **argv)
{
	uint64_t ms = option(argc, argv, "ms", 2000);
	const char *path = text_option(argc, argv, "plugin", "./plugin.so");
	struct group before[] = {{.name = "host_work", .run = host_work, .weight = 1}};
	struct group groups[] = {
		{.name = "host_work", .run = host_work, .weight = 1, .stack = "\"host_work\",\"spin_shares\",\"main\""},
		{.name = "plugin_burn", .run = call_plugin, .weight = 3,
		 .stack = "\"plugin_burn\",\"plugin_inner\",\"plugin_entry\",\"call_plugin\",\"spin_shares\",\"main\""},
	};

	spin_shares(before, 1, ms / 2);
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!library || !(plugin = (uint64_t(*)(uint64_t))dlsym(library, "plugin_entry"))) {
		fprintf(stderr, "plugin_host: %s\n", dlerror());
		return 1;
	}
	spin_shares(groups, COUNT(groups), ms - ms / 2);
	groups[0].ns += before[0].ns;
	report("c/plugin_host", groups, COUNT(groups));
	return 0;
}
