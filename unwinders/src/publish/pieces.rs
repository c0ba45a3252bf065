//! Runtimes' pieces, laid over the mappings of a process.

use profiler_bpf::abi::{self, FrameKind};

use crate::runtime::Piece;

/// Makes `piece` code of `kind` in `all`, which is sorted; mappings that it covers in part are cut. What is not mapped stays so.
pub(super) fn lay(all: &mut Vec<abi::Mapping>, piece: &Piece, kind: FrameKind) {
    let (start, end) = (piece.start.0, piece.end.0);
    if start >= end {
        return;
    }
    let first = all.partition_point(|mapping| mapping.end <= start);
    let last = all.partition_point(|mapping| mapping.start < end);
    let change = |mapping: &mut abi::Mapping| {
        mapping.unwinder = abi::unwinder_word(kind, piece.instance);
        if let Some(rows) = piece.rows {
            mapping.executable = rows.slot;
            mapping.bias = rows.bias;
        }
    };
    match all.get_mut(first..last) {
        // Nearly always.
        Some([whole]) if start <= whole.start && whole.end <= end => change(whole),
        Some(covered) if !covered.is_empty() => {
            let mut parts = Vec::with_capacity(covered.len() + 2);
            for mapping in covered.iter() {
                let mut inside =
                    abi::Mapping { start: mapping.start.max(start), end: mapping.end.min(end), ..*mapping };
                if mapping.start < inside.start {
                    parts.push(abi::Mapping { end: inside.start, ..*mapping });
                }
                change(&mut inside);
                parts.push(inside);
                if inside.end < mapping.end {
                    parts.push(abi::Mapping { start: inside.end, ..*mapping });
                }
            }
            all.splice(first..last, parts);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use profiler_address::UserAddr;
    use profiler_bpf::abi::NO_EXECUTABLE;

    use super::*;
    use crate::runtime::RowsAt;

    const OTHER: FrameKind = FrameKind::new(7).unwrap();

    fn mapping(start: u64, end: u64, executable: u32, unwinder: u32) -> abi::Mapping {
        abi::Mapping { start, end, bias: u64::from(executable) << 32, executable, unwinder }
    }

    fn piece(start: u64, end: u64, rows: Option<RowsAt>) -> Piece {
        Piece { start: UserAddr(start), end: UserAddr(end), rows, instance: 0 }
    }

    #[test]
    fn a_piece_within_a_mapping_cuts_it_and_leaves_its_rows() {
        let mut all = vec![mapping(0x1000, 0x9000, 3, 0), mapping(0xa000, 0xb000, 4, 0)];
        lay(&mut all, &piece(0x2000, 0x3000, None), OTHER);
        assert_eq!(
            all,
            [
                mapping(0x1000, 0x2000, 3, 0),
                mapping(0x2000, 0x3000, 3, 7),
                mapping(0x3000, 0x9000, 3, 0),
                mapping(0xa000, 0xb000, 4, 0)
            ]
        );
    }

    #[test]
    fn a_piece_over_several_mappings_covers_what_is_mapped_and_no_gap() {
        let none = |start, end| abi::Mapping { bias: 0, ..mapping(start, end, NO_EXECUTABLE, 0) };
        let mut all = vec![none(0x1000, 0x2000), none(0x3000, 0x4000), none(0x4000, 0x6000)];
        lay(&mut all, &piece(0x1800, 0x5000, Some(RowsAt { slot: 2, bias: 2 << 32 })), OTHER);
        assert_eq!(
            all,
            [
                none(0x1000, 0x1800),
                mapping(0x1800, 0x2000, 2, 7),
                mapping(0x3000, 0x4000, 2, 7),
                mapping(0x4000, 0x5000, 2, 7),
                none(0x5000, 0x6000)
            ]
        );
    }

    #[test]
    fn a_piece_of_nothing_mapped_changes_nothing() {
        let mut all = vec![mapping(0x1000, 0x2000, 1, 0)];
        for (start, end) in [(0, 0x1000), (0x2000, u64::MAX), (0x1800, 0x1800), (0x1800, 0x1700)] {
            lay(&mut all, &piece(start, end, None), OTHER);
            assert_eq!(all, [mapping(0x1000, 0x2000, 1, 0)]);
        }
    }
}
