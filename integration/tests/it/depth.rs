//! Stacks deeper than what is kept: cut at 1,024 frames, and never silently.

use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use profiler_integration::recording::record_command;
use profiler_integration::rows::total;
use profiler_integration::shares::group_of;
use profiler_model::FrameKind;

const LIMIT: usize = 1024;

#[test]
fn root_a_stack_of_1500_frames_is_cut_and_says_so() {
    let test = "root_a_stack_of_1500_frames_is_cut_and_says_so";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let file = programs::c("shares").build().expect("it builds");
    let recorded = record_command(HERTZ, &file, &["--ms", "1000", "--depth", "1500"]).expect("a recording");
    let groups = ["hot_a", "hot_b", "hot_c", "hot_d"];
    let rows: Vec<_> = recorded.own_rows().into_iter().filter(|row| group_of(row, &groups).is_some()).collect();
    assert!(total(&rows) > 100, "{} samples", total(&rows));
    for row in &rows {
        // The kernel's frames come on top, as many as an interrupt has.
        let frames = row.frames.iter().filter(|frame| frame.kind == FrameKind::Native).count();
        assert!((LIMIT - 8..=LIMIT).contains(&frames), "{frames} frames in {}", row.describe());
        assert!(row.marker().is_some(), "cut without a word: {}", row.describe());
        let last = row.frames.last().map(|frame| frame.kind);
        assert_eq!(last, Some(FrameKind::Marker), "{}", row.describe());
    }
}
