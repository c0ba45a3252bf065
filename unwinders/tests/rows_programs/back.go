package main

/*
#include <stdlib.h>
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
extern int back(int);
static int work(int n) {
	int *values = malloc(n * sizeof *values);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < n; i++) values[i] = (i * 7919) % n;
		qsort(values, n, sizeof *values, compare);
	}
	free(values);
	return back(n);
}
*/
import "C"

//export back
func back(n C.int) C.int {
	x := C.int(0)
	for i := C.int(0); i < 100000000; i++ {
		x += i * n
	}
	return x
}

func main() {
	for {
		C.work(100000)
	}
}
