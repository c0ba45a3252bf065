//! Iterators, closures and generic collections: what a Rust program of today inlines.
use std::collections::HashMap;

fn main() {
    let mut squares: HashMap<String, Vec<u64>> = HashMap::new();
    for i in 0..1000u64 {
        squares.entry(format!("k{}", i % 17)).or_default().push(i * i);
    }
    let mut sums: Vec<_> = squares.iter().map(|(key, values)| (key.clone(), values.iter().sum::<u64>())).collect();
    sums.sort_by(|a, b| b.1.cmp(&a.1));
    println!("{sums:?}");
}
