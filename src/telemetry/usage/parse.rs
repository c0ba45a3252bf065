//! The texts of `/proc` that tell what the profiler and its host use.

/// User and system time of a `/proc/PID/stat`, clock ticks.
pub(super) fn process_ticks(stat: &str) -> Option<(u64, u64)> {
    ticks(stat, 14)
}

/// The same of its children that were waited for.
pub(super) fn children_ticks(stat: &str) -> Option<(u64, u64)> {
    ticks(stat, 16)
}

/// Two fields from the one of that number on. utime and stime are 14 and 15, cutime and cstime 16 and 17.
fn ticks(stat: &str, field: usize) -> Option<(u64, u64)> {
    // The second field is the command in parentheses, and may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(field.checked_sub(3)?);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Resident pages of a `/proc/PID/statm`.
pub(super) fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Resident pages of a `/proc/PID/statm` that are of no file and not shared.
pub(super) fn anonymous_pages(statm: &str) -> Option<u64> {
    let mut fields = statm.split_ascii_whitespace().skip(1).map(|field| field.parse::<u64>());
    fields.next()?.ok()?.checked_sub(fields.next()?.ok()?)
}

/// Bytes of all BPF maps (ring buffers too) that a `/proc/PID/maps` shows.
pub(super) fn mapped_bpf_bytes(maps: &str) -> u64 {
    let length = |line: &str| {
        let (range, _) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        u64::from_str_radix(end, 16).ok()?.checked_sub(u64::from_str_radix(start, 16).ok()?)
    };
    let bpf = maps.lines().filter(|line| line.ends_with("anon_inode:bpf-map"));
    bpf.filter_map(length).fold(0, u64::saturating_add)
}

/// The value behind `key:` in a `/proc/PID/fdinfo` file.
pub(super) fn value<'a>(fdinfo: &'a str, key: &str) -> Option<&'a str> {
    fdinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// Busy and all time of all CPUs together from `/proc/stat`, clock ticks.
pub(super) fn host_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; guest times, which follow, are in user and nice already.
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let all = ticks.iter().fold(0u64, |sum, &ticks| sum.saturating_add(ticks));
    let idle = ticks.get(3)?.saturating_add(*ticks.get(4)?);
    Some((all.saturating_sub(idle), all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_look_like_fields() {
        let stat = "17 (a) S 1 2) R 1 17 17 0 -1 4194560 1 2 3 4 123 45 0 0 20 0 1 0 100 1 1";
        assert_eq!(process_ticks(stat), Some((123, 45)));
        assert_eq!(children_ticks(stat), Some((0, 0)));
        assert_eq!(children_ticks("17 (a) R 1 17 17 0 -1 4194560 1 2 3 4 123 45 6 7 20"), Some((6, 7)));
        assert_eq!(anonymous_pages("900 50 20 3 0 4 0"), Some(30));
        assert_eq!(anonymous_pages("900 50"), None);
        assert_eq!(process_ticks("17 (torn"), None);
        assert_eq!(process_ticks("17 (x) R 1 2 3"), None);
    }

    #[test]
    fn bpf_maps_among_mappings() {
        let maps = "7f0000000000-7f0000002000 rw-s 00000000 00:0e 6 anon_inode:bpf-map\n\
                    7f0000002000-7f0000003000 r--p 00000000 08:01 9 /lib/anon_inode:bpf-map.so\n\
                    7f0000003000-7f0000004000 r--s 00000000 00:0e 6 anon_inode:bpf-map\n\
                    nonsense anon_inode:bpf-map\n";
        assert_eq!(mapped_bpf_bytes(maps), 0x3000);
    }

    #[test]
    fn fdinfo_keys_are_whole() {
        let fdinfo = "pos:\t0\nprog_type:\t7\nrun_time_ns:\t1234\nrun_cnt:\t5\nmap_type:\t2\n";
        assert_eq!(value(fdinfo, "run_time_ns"), Some("1234"));
        assert_eq!(value(fdinfo, "run"), None);
        assert_eq!(value(fdinfo, "type"), None);
    }

    #[test]
    fn guests_are_not_counted_twice() {
        assert_eq!(host_ticks("cpu  10 1 5 80 4 0 1 3 7 7\ncpu0 1 1 1 1\n"), Some((20, 104)));
        // Kernels of long ago had fewer fields.
        assert_eq!(host_ticks("cpu  10 1 5 80 4\n"), Some((16, 100)));
        assert_eq!(host_ticks("cpu  10 1"), None);
        assert_eq!(host_ticks("intr 1 2 3"), None);
    }
}
