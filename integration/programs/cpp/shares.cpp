// C++ work with known shares: exceptions that cross many frames, lambdas behind std::function, templates, sorting with a
// callback, virtual calls, destructors run by the unwinder.
// usage: shares [--ms 2000] [--depth 0]
#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../c/truth.h"

namespace ground {

struct Guard {
    uint64_t &count;
    ~Guard() { count++; }
};

NOINLINE uint64_t throw_below(int depth, uint64_t &unwound) {
    Guard guard{unwound};
    if (depth == 0) throw std::runtime_error("the bottom");
    uint64_t result = throw_below(depth - 1, unwound);
    KEEP_FRAME();
    return result + 1;
}

// Nearly all time is in libgcc's unwinder and libstdc++.
NOINLINE uint64_t by_exception(uint64_t units) {
    uint64_t unwound = 0;
    for (uint64_t i = 0; i < units / 16 + 1; i++) {
        try {
            throw_below(12, unwound);
        } catch (const std::exception &error) {
            unwound += error.what()[0];
        }
    }
    return unwound;
}

NOINLINE uint64_t call(const std::function<uint64_t(uint64_t)> &callee, uint64_t value) {
    uint64_t result = callee(value);
    KEEP_FRAME();
    return result + 1;
}

NOINLINE uint64_t by_lambda(uint64_t units) {
    uint64_t total = 0;
    auto callee = [&total, units](uint64_t value) {
        for (uint64_t i = 0; i < 64; i++) {
            total = total * 31 + value + units;
            __asm__ volatile("" : "+r"(total));
        }
        return total;
    };
    for (uint64_t i = 0; i < units; i++) total += call(callee, i);
    return total;
}

NOINLINE uint64_t by_sort(uint64_t units) {
    static std::vector<uint32_t> values(1024);
    uint64_t random = units | 1;
    for (uint64_t round = 0; round < units / 64 + 1; round++) {
        for (auto &value : values) value = static_cast<uint32_t>(truth_random(&random));
        std::sort(values.begin(), values.end(), [](uint32_t a, uint32_t b) noexcept {
            __asm__ volatile("" ::: "memory");
            return a < b;
        });
    }
    return values[units % values.size()];
}

struct Shape {
    virtual ~Shape() = default;
    virtual uint64_t area(uint64_t scale) const = 0;
};

struct Square final : Shape {
    NOINLINE uint64_t area(uint64_t scale) const override {
        uint64_t x = scale;
        for (int i = 0; i < 50; i++) {
            x = x * x + 1;
            __asm__ volatile("" : "+r"(x));
        }
        return x;
    }
};

struct Circle final : Shape {
    NOINLINE uint64_t area(uint64_t scale) const override {
        uint64_t x = scale;
        for (int i = 0; i < 50; i++) {
            x = x * 3 + (x >> 3);
            __asm__ volatile("" : "+r"(x));
        }
        return x;
    }
};

NOINLINE uint64_t by_virtual(uint64_t units) {
    static const std::unique_ptr<Shape> shapes[] = {std::make_unique<Square>(), std::make_unique<Circle>()};
    uint64_t total = 0;
    for (uint64_t i = 0; i < units; i++) total += shapes[i & 1]->area(i);
    return total;
}

template <typename Number, int Step>
NOINLINE uint64_t by_template(uint64_t units) {
    Number x = static_cast<Number>(units);
    for (uint64_t i = 0; i < units * 32; i++) {
        x = x * 3 + Step;
        __asm__ volatile("" : "+r"(x));
    }
    return static_cast<uint64_t>(x);
}

group groups[] = {
    {"by_exception", by_exception, 25, nullptr, 0, 0},
    {"by_lambda", by_lambda, 25, nullptr, 0, 0},
    {"by_sort", by_sort, 25, nullptr, 0, 0},
    {"by_virtual", by_virtual, 15, nullptr, 0, 0},
    {"by_template", by_template<uint64_t, 7>, 10, nullptr, 0, 0},
};

NOINLINE uint64_t descend(uint64_t depth, uint64_t ms) {
    std::string kept(depth % 40 + 20, 'x'); // a destructor, so the frame has a landing pad
    uint64_t result = depth > 1 ? descend(depth - 1, ms) : spin_shares(groups, COUNT(groups), ms);
    return result + kept.size();
}

} // namespace ground

int main(int argc, char **argv) {
    const uint64_t depth = option(argc, argv, "depth", 1);
    static std::string stacks[COUNT(ground::groups)];
    for (int i = 0; i < COUNT(ground::groups); i++) {
        stacks[i] = std::string("\"") + ground::groups[i].name + "\",\"spin_shares\",\"descend*" + std::to_string(depth) + "\",\"main\"";
        ground::groups[i].stack = stacks[i].c_str();
    }
    truth_sink += ground::descend(depth, option(argc, argv, "ms", 2000));
    report("cpp/shares", ground::groups, COUNT(ground::groups));
}
