// Templates, lambdas, static functions, calls through the PLT: what a C++ program of today inlines.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace store {
template <class T> struct Column {
    std::vector<T> values;
    static int compare(const void *a, const void *b) { return *(const T *)a < *(const T *)b ? -1 : 1; }
    void fill(int n) {
        for (int i = 0; i < n; i++)
            values.push_back(T(rand()));
        std::sort(values.begin(), values.end(), [](T a, T b) { return a < b; });
        qsort(values.data(), values.size(), sizeof(T), compare);
    }
};
} // namespace store

static int count(std::map<std::string, int> &counts, const char *word) {
    if (counts.size() > 1000)
        abort();
    return counts[word]++;
}

extern "C" int plain_c(int x) { return x * 3; }

int main(int argc, char **) {
    store::Column<int> ints;
    ints.fill(argc * 1000);
    store::Column<double> doubles;
    doubles.fill(argc * 500);
    std::map<std::string, int> counts;
    for (int i = 0; i < argc * 100; i++)
        count(counts, std::to_string(i % 97).c_str());
    printf("%d %zu %f\n", ints.values[0], counts.size(), doubles.values[1]);
    return plain_c(argc);
}
