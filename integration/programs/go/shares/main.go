// Go work with known shares: goroutines that sit deep, method values, interface calls, maps, and allocations that keep
// the runtime on its system stacks. Each measured goroutine is locked to its thread, since CPU time is known by thread.
//
// usage: shares [--ms 2000] [--depth 1]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sort"
	"sync"
	"syscall"
	"unsafe"
)

const turnNanos = 400_000

var sink uint64

func threadCPU() uint64 {
	const clockThreadCPUTimeID = 3
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPUTimeID, uintptr(unsafe.Pointer(&now)), 0)
	return uint64(now.Sec)*1_000_000_000 + uint64(now.Nsec)
}

//go:noinline
func hotLoop(units uint64) uint64 {
	x := units
	for i := uint64(0); i < units*16; i++ {
		x = x*6364136223846793005 + i
	}
	return x
}

type counter struct{ step uint64 }

//go:noinline
func (c *counter) advance(units uint64) uint64 {
	x := units
	for i := uint64(0); i < 64; i++ {
		x = (x << 3) ^ (x >> 5) + c.step
	}
	return x
}

//go:noinline
func hotMethod(units uint64) uint64 {
	advance := (&counter{step: units}).advance // a method value: called through a closure and a wrapper
	x := uint64(0)
	for i := uint64(0); i < units; i++ {
		x += advance(i)
	}
	return x
}

type leaf struct {
	next *leaf
	data [6]uint64
}

//go:noinline
func hotAllocate(units uint64) uint64 {
	var list *leaf
	for i := uint64(0); i < units; i++ {
		list = &leaf{next: list}
		list.data[i%6] = i
		if i%256 == 0 {
			list = nil
		}
	}
	if list == nil {
		return 0
	}
	return list.data[0]
}

//go:noinline
func hotSort(units uint64) uint64 {
	values := make([]uint64, 256)
	x := units | 1
	for round := uint64(0); round < units/32+1; round++ {
		for i := range values {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			values[i] = x
		}
		sort.Slice(values, func(i, j int) bool { return values[i] < values[j] })
	}
	return values[0]
}

type group struct {
	name   string
	run    func(uint64) uint64
	weight uint64
	ns     uint64
	units  uint64
}

//go:noinline
func spinShares(groups []group, ms uint64) uint64 {
	var total, weights, result uint64
	random := 0x9e3779b97f4a7c15 ^ uint64(os.Getpid())
	for _, g := range groups {
		weights += g.weight
	}
	for total < ms*1_000_000 {
		next, most := 0, int64(-1<<62)
		for i := range groups {
			g := &groups[i]
			if behind := int64(total*g.weight/weights) - int64(g.ns) + int64(g.weight); behind > most {
				next, most = i, behind
			}
		}
		g := &groups[next]
		random ^= random << 13
		random ^= random >> 7
		random ^= random << 17
		units := g.units/2 + random%g.units + 1
		before := threadCPU()
		result += g.run(units)
		used := threadCPU() - before
		g.ns += used
		total += used
		if used < turnNanos/2 {
			g.units *= 2
		} else if used > turnNanos*2 && g.units > 1 {
			g.units /= 2
		}
	}
	return result
}

//go:noinline
func descend(groups []group, depth, ms uint64) uint64 {
	var kept [5]uint64
	kept[depth%5] = depth
	if depth > 1 {
		return descend(groups, depth-1, ms) + kept[depth%5]
	}
	return spinShares(groups, ms) + kept[depth%5]
}

//go:noinline
func worker(groups []group, depth, ms uint64, done *sync.WaitGroup) {
	runtime.LockOSThread()
	sink += descend(groups, depth, ms)
	done.Done()
}

func main() {
	ms := flag.Uint64("ms", 2000, "CPU time, ms")
	depth := flag.Uint64("depth", 1, "depth of recursion")
	flag.Parse()
	groups := []group{
		{name: "main.hotLoop", run: hotLoop, weight: 40, units: 16},
		{name: "main.hotMethod", run: hotMethod, weight: 25, units: 16},
		{name: "main.hotAllocate", run: hotAllocate, weight: 20, units: 16},
		{name: "main.hotSort", run: hotSort, weight: 15, units: 16},
	}
	var done sync.WaitGroup
	done.Add(1)
	go worker(groups, *depth, *ms, &done)
	done.Wait()

	shares, stacks, total := map[string]uint64{}, map[string][]string{}, uint64(0)
	for _, g := range groups {
		shares[g.name] = g.ns
		total += g.ns
		stacks[g.name] = []string{g.name, "main.spinShares", fmt.Sprintf("main.descend*%d", *depth), "main.worker", "...", "runtime.goexit"}
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{
		"program": "go/shares", "pid": os.Getpid(), "cpu_ns": total, "shares": shares, "stacks": stacks,
	}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
