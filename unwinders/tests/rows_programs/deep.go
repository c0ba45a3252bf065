package main

import (
	"runtime"
	"sync"
	"time"
)

//go:noinline
func deep(n int) int {
	if n == 0 {
		return spin()
	}
	return deep(n-1) + 1
}

//go:noinline
func spin() int {
	x := 1
	for i := 0; x != 0; i++ {
		x += i*i | 1
		if x == 0 {
			x = 1
		}
	}
	return x
}

func allocate() {
	var keep [][]byte
	for {
		keep = append(keep, make([]byte, 1024))
		if len(keep) > 10000 {
			keep = nil
			runtime.GC()
		}
	}
}

func grow(n int, fill [256]byte) byte {
	if n == 0 {
		return fill[0]
	}
	fill[n%256] = byte(n)
	return grow(n-1, fill) + fill[1]
}

func main() {
	var lock sync.Mutex
	go deep(300)
	go allocate()
	go func() {
		for {
			lock.Lock()
			lock.Unlock()
			time.Sleep(time.Microsecond)
		}
	}()
	for {
		done := make(chan byte)
		go func() { done <- grow(1000, [256]byte{}) }()
		<-done
		time.Now()
	}
}
