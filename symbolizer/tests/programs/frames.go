// Reads its own addresses (hex, one a line) and prints what the Go runtime calls each: function, file and line.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
)

// bias is what the kernel added to the addresses in the file, whose first segment starts at first.
func bias(first uint64) uint64 {
	maps, _ := os.ReadFile("/proc/self/maps")
	executable, _ := os.Readlink("/proc/self/exe")
	for _, line := range strings.Split(string(maps), "\n") {
		if strings.HasSuffix(line, executable) {
			start, _ := strconv.ParseUint(strings.Split(line, "-")[0], 16, 64)
			return start - first
		}
	}
	return 0
}

func main() {
	first, _ := strconv.ParseUint(os.Args[1], 0, 64)
	added := bias(first)
	if len(os.Args) > 5 {
		text, _ := json.Marshal(os.Args)
		sort.Strings(os.Args)
		fmt.Println(string(text))
	}
	in, out := bufio.NewScanner(os.Stdin), bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in.Scan() {
		address, _ := strconv.ParseUint(in.Text(), 16, 64)
		// A return address: the runtime takes one off.
		frame, _ := runtime.CallersFrames([]uintptr{uintptr(address + added + 1)}).Next()
		fmt.Fprintf(out, "%x\t%s\t%s\t%d\n", address, frame.Function, frame.File, frame.Line)
	}
}
