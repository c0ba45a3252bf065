//! Shares of CPU time: what a profile says against what is true.

use std::collections::BTreeMap;

use crate::rows::{Row, is_function};

/// Samples by group: a row belongs to the group whose function is innermost in it. What is in no group is under "".
#[must_use]
pub fn by_group<'a>(rows: impl IntoIterator<Item = &'a Row>, groups: &[&str]) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = groups.iter().map(|&group| (group.to_owned(), 0)).collect();
    for row in rows {
        let group = group_of(row, groups).unwrap_or_default();
        *counts.entry(group.to_owned()).or_default() += row.count;
    }
    counts
}

/// The group whose function is innermost in `row`.
#[must_use]
pub fn group_of<'a>(row: &Row, groups: &[&'a str]) -> Option<&'a str> {
    row.user_frames()
        .flat_map(|frame| &frame.functions)
        .find_map(|name| groups.iter().copied().find(|group| is_function(name, group)))
}

/// Samples by the function on top of the stack (of the user part, if `user` is set): the one that symbol tables know, not
/// one inlined into it.
#[must_use]
pub fn by_leaf<'a>(rows: impl IntoIterator<Item = &'a Row>, user: bool) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for row in rows {
        let leaf = if user { row.user_frames().next() } else { row.frames.first() };
        let name = leaf.and_then(|frame| frame.functions.last()).map_or("?", String::as_str);
        *counts.entry(name.to_owned()).or_default() += row.count;
    }
    counts
}

/// Shares that are off by more than sampling noise (three sigma of the binomial, and one sample): `truth` in ns, `counts` in
/// samples. One line for each.
#[must_use]
pub fn off_from_truth(truth: &BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) -> Vec<String> {
    let time: u64 = truth.values().sum();
    let samples: u64 = truth.keys().filter_map(|group| counts.get(group)).sum();
    if samples == 0 || time == 0 {
        return vec![format!("{samples} samples in {time} ns of {:?}; all counts: {counts:?}", truth.keys())];
    }
    let mut off = Vec::new();
    for (group, &ns) in truth {
        let expected = ns as f64 / time as f64;
        let count = counts.get(group).copied().unwrap_or(0);
        let seen = count as f64 / samples as f64;
        let sigma = (expected * (1.0 - expected) / samples as f64).sqrt();
        if (seen - expected).abs() > 3.0 * sigma + 1.0 / samples as f64 {
            off.push(format!(
                "{group}: {:.2} % of {samples} samples, truly {:.2} % ({:+.1} sigma)",
                seen * 100.0,
                expected * 100.0,
                (seen - expected) / sigma.max(1e-9)
            ));
        }
    }
    off
}

/// Shares in which two profiles of the same run differ by more than the noise of both. One line for each.
#[must_use]
pub fn off_from_each_other(ours: &BTreeMap<String, u64>, theirs: &BTreeMap<String, u64>) -> Vec<String> {
    let (n, m) = (ours.values().sum::<u64>() as f64, theirs.values().sum::<u64>() as f64);
    if n == 0.0 || m == 0.0 {
        return vec![format!("{n} samples against {m}")];
    }
    let mut off = Vec::new();
    let mut names: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (a, b) = (ours.get(name).copied().unwrap_or(0) as f64, theirs.get(name).copied().unwrap_or(0) as f64);
        let both = (a + b) / (n + m);
        let sigma = (both * (1.0 - both) * (1.0 / n + 1.0 / m)).sqrt();
        if (a / n - b / m).abs() > 3.0 * sigma + 1.0 / n + 1.0 / m {
            off.push(format!("{name}: {:.2} % of {n} samples against {:.2} % of {m}", a / n * 100.0, b / m * 100.0));
        }
    }
    off
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn noise_passes_and_bias_does_not() {
        let truth = map(&[("a", 500), ("b", 500)]);
        assert_eq!(off_from_truth(&truth, &map(&[("a", 520), ("b", 480)])), Vec::<String>::new());
        assert_eq!(off_from_truth(&truth, &map(&[("a", 560), ("b", 440)])).len(), 2);
        assert_eq!(off_from_truth(&truth, &map(&[])).len(), 1);
        assert!(off_from_each_other(&map(&[("a", 50), ("b", 50)]), &map(&[("a", 60), ("b", 40)])).is_empty());
        assert!(!off_from_each_other(&map(&[("a", 500), ("b", 500)]), &map(&[("a", 600), ("b", 400)])).is_empty());
    }
}
