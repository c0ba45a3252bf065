//! Java on HotSpot: shares by phase, callers, depth and roots, interpreted and compiled by either compiler.

use profiler_integration::environment::{find, have_tools};
use profiler_integration::java::{Mode, compile, prove_shares, record_shares};
use profiler_integration::recording::folder;

fn proves(test: &str, mode: &Mode) {
    if !have_tools(test, &["java", "javac"]) {
        return;
    }
    let java = find("java").expect("asked for above");
    let classes = folder().unwrap_or_else(|error| panic!("{error}"));
    compile(classes.path()).unwrap_or_else(|error| panic!("{error}"));
    let path = classes.path().display().to_string();
    prove_shares(test, mode, || record_shares(&java, &path, mode, "2500"));
}

#[test]
fn root_java_mixed() {
    proves("root_java_mixed", &Mode::MIXED);
}

#[test]
fn root_java_interpreted() {
    proves("root_java_interpreted", &Mode::INTERPRETED);
}

#[test]
fn root_java_by_the_first_compiler() {
    proves("root_java_by_the_first_compiler", &Mode::FIRST_COMPILER);
}
