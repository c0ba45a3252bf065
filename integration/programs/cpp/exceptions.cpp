// Does nothing but throw, clean up and catch: what is sampled is mostly the unwinder, on its way from one frame to another.
// usage: exceptions [--ms 2000]
#include <stdexcept>

#include "../c/truth.h"

namespace ground {

struct Guard {
    uint64_t &count;
    ~Guard() { count++; }
};

// Cleaned up frame by frame (_Unwind_Resume).
NOINLINE uint64_t throw_past_guards(int depth, uint64_t &unwound) {
    Guard guard{unwound};
    if (depth == 0) throw 1;
    uint64_t result = throw_past_guards(depth - 1, unwound);
    KEEP_FRAME();
    return result + 1;
}

// Straight to the handler (_Unwind_RaiseException).
NOINLINE uint64_t throw_below(int depth) {
    if (depth == 0) throw 1;
    uint64_t result = throw_below(depth - 1);
    KEEP_FRAME();
    return result + 1;
}

NOINLINE uint64_t catch_guarded(uint64_t units) {
    uint64_t unwound = 0;
    for (uint64_t i = 0; i < units / 8 + 1; i++) {
        try {
            throw_past_guards(4, unwound);
        } catch (int thrown) {
            unwound += thrown;
        }
    }
    return unwound;
}

NOINLINE uint64_t catch_plain(uint64_t units) {
    uint64_t caught = 0;
    for (uint64_t i = 0; i < units / 4 + 1; i++) {
        try {
            throw_below(4);
        } catch (int thrown) {
            caught += thrown;
        }
    }
    return caught;
}

}  // namespace ground

int main(int argc, char **argv) {
    struct group groups[] = {
        {"ground::catch_guarded", ground::catch_guarded, 50, "\"ground::catch_guarded\",\"spin_shares\",\"main\"", 0, 0},
        {"ground::catch_plain", ground::catch_plain, 50, "\"ground::catch_plain\",\"spin_shares\",\"main\"", 0, 0},
    };
    spin_shares(groups, COUNT(groups), option(argc, argv, "ms", 2000));
    report("cpp/exceptions", groups, COUNT(groups));
    return 0;
}
