//! What is shipped beside the program says what the program says.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{reference, schema};
use super::file;

const BEGIN: &str = "<!-- keys: written by the tests of controller/config, do not edit below -->\n";
const END: &str = "<!-- end of keys -->\n";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// `name` holds `wanted`. With `UPDATE_DOCUMENTS=1` it is written first.
fn holds(name: &str, wanted: &str) {
    let path = path(name);
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(&path, wanted).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let found = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(found == wanted, "{name} is out of date; run: UPDATE_DOCUMENTS=1 cargo test -p profiler-config");
}

#[test]
fn the_shipped_schema_is_that_of_the_program() {
    holds("docs/config.schema.json", &format!("{:#}\n", schema()));
}

#[test]
fn the_reference_is_that_of_the_program() {
    let name = "docs/configuration.md";
    let found = fs::read_to_string(path(name)).expect("readable");
    let (before, rest) = found.split_once(BEGIN).expect("the mark of the first key");
    let (_, after) = rest.split_once(END).expect("the mark of the last key");
    holds(name, &format!("{before}{BEGIN}\n{}{END}{after}", reference()));
}

#[test]
fn the_shipped_example_is_right() {
    let text = fs::read_to_string(path("deploy/config.example.yaml")).expect("readable");
    file(&text);
    // What is commented out, `#key: value` without a space, is right too.
    let all: Vec<String> = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => line.replacen('#', "", 1),
            _ => line.to_owned(),
        })
        .collect();
    let all = all.join("\n");
    super::loaded(&super::Flags::default(), &[("OTLP_TOKEN", "t")], &all)
        .unwrap_or_else(|errors| panic!("{all}\n{errors}"));
}
