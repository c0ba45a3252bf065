// Command cpuprofile records half a second of its own CPU time with Go's own profiler: a pprof file as it occurs in the wild.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/pprof"
	"sort"
	"strings"
	"syscall"
	"time"
)

func words(n int) []string {
	words := make([]string, n)
	for i := range words {
		words[i] = strings.Repeat(string(rune('a'+i%26)), i%7+1)
	}
	return words
}

// used is the CPU time that this process has taken.
func used() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func work(cpu time.Duration) (sum int) {
	for end := used() + cpu; used() < end; {
		list := words(5000)
		sort.Strings(list)
		sum += len(list[0])
	}
	return sum
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: cpuprofile FILE.pb.gz")
		os.Exit(2)
	}
	file, err := os.Create(os.Args[1])
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cpuprofile:", err)
		os.Exit(1)
	}
	pprof.Do(context.Background(), pprof.Labels("phase", "sorting"), func(context.Context) {
		work(500 * time.Millisecond)
	})
	pprof.StopCPUProfile()
	if err := file.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "cpuprofile:", err)
		os.Exit(1)
	}
}
