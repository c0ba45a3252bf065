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

/// The pages for people.
fn pages() -> Vec<(String, String)> {
    let mut pages = vec!["README.md".to_owned()];
    for entry in fs::read_dir(path("docs")).expect("readable") {
        let name = entry.expect("readable").file_name().into_string().expect("UTF-8");
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    let text = |name: &String| fs::read_to_string(path(name)).expect("readable");
    pages.into_iter().map(|name| (name.clone(), text(&name))).collect()
}

/// The first words of a text in backticks, if it looks like a key: `limits.memory`, `exporters[].otlp.endpoint`, `log.level: debug`.
fn as_key(text: &str) -> Option<String> {
    let text = text.split([':', '=', ' ']).next()?.replace("[]", "").replace("[0]", "");
    let right = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    (text.contains('.') && text.split('.').all(right)).then_some(text)
}

#[test]
fn every_key_that_a_page_names_is_one() {
    let known: Vec<String> = super::super::paths().iter().map(|path| path.replace("[]", "")).collect();
    let is_section = |word: &str| known.iter().any(|path| path.rsplit('.').skip(1).any(|part| part == word));
    let mut seen = 0;
    for (name, page) in pages() {
        // Every second piece between backticks is code; a block of code is more than one line.
        for text in page.split('`').skip(1).step_by(2).filter(|text| !text.contains('\n')) {
            let Some(key) = as_key(text) else { continue };
            if !is_section(key.split('.').next().unwrap_or_default()) {
                continue;
            }
            seen += 1;
            // Where variables are told of, what is meant is below the exporter.
            let right = known.contains(&key) || known.contains(&format!("exporters.otlp.{key}"));
            assert!(right, "{name} names the key `{text}`, which there is not");
        }
    }
    assert!(seen > 20, "only {seen} keys were found");
}

#[test]
fn every_configuration_that_a_page_shows_is_right() {
    let mut seen = 0;
    for (name, page) in pages() {
        for block in page.split("```yaml\n").skip(1) {
            let text = block.split("```").next().unwrap_or_default();
            let first = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
            let Some((key, _)) = first.split_once(':') else { continue };
            if !super::super::paths().iter().any(|path| path == key) {
                continue;
            }
            seen += 1;
            let variables = [("OTLP_TOKEN", "t"), ("OPAMP_TOKEN", "t"), ("HASH_KEY", "0123456789abcdef")];
            super::loaded(&super::Flags::default(), &variables, text)
                .unwrap_or_else(|errors| panic!("{name} shows:\n{text}\n{errors}"));
        }
    }
    assert!(seen > 1, "only {seen} were found");
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
    super::loaded(&super::Flags::default(), &[("OTLP_TOKEN", "t"), ("OPAMP_TOKEN", "t")], &all)
        .unwrap_or_else(|errors| panic!("{all}\n{errors}"));
}
