// Its C main, which rustc writes, has no call frame instructions when a panic aborts.
use std::hint::black_box;

#[inline(never)]
fn recurse(n: u64) -> u64 {
    if n == 0 {
        return (0..20_000_000u64).fold(0, |sum, i| black_box(sum ^ i));
    }
    black_box(recurse(n - 1)) + 1
}

fn main() {
    loop {
        black_box(recurse(40));
    }
}
