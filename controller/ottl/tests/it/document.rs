//! `docs/ottl.md` has all functions.

const BEGIN: &str = "<!-- The functions, written by UPDATE_DOCUMENTS=1 cargo test -p profiler-ottl -->\n";
const END: &str = "<!-- End of the functions -->\n";

#[test]
fn the_document_has_the_functions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ottl.md");
    let text = std::fs::read_to_string(path).expect(path);
    let (before, rest) = text.split_once(BEGIN).expect("the begin of the functions");
    let (_, after) = rest.split_once(END).expect("the end of the functions");
    let wanted = format!("{before}{BEGIN}\n{}{END}{after}", profiler_ottl::reference::markdown());
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        std::fs::write(path, &wanted).expect(path);
    }
    let found = std::fs::read_to_string(path).expect(path);
    assert!(found == wanted, "docs/ottl.md is out of date; run: UPDATE_DOCUMENTS=1 cargo test -p profiler-ottl");
}
