//! The functions as a table for people.

use std::fmt::Write;

use crate::functions::{Function, groups};

impl Function {
    /// How it is called: `Trim(target, [replacement])`.
    #[must_use]
    pub fn signature(&self) -> String {
        let parameters: Vec<String> = self
            .parameters
            .iter()
            .map(
                |parameter| {
                    if parameter.optional { format!("[{}]", parameter.name) } else { parameter.name.to_owned() }
                },
            )
            .collect();
        format!("{}({})", self.name, parameters.join(", "))
    }
}

/// All functions in Markdown: a table a group.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::new();
    for (group, functions) in groups() {
        let _ = writeln!(text, "### {group}\n\n| Function | Takes | Returns | |\n|---|---|---|---|");
        for function in functions {
            let takes: Vec<String> = function
                .parameters
                .iter()
                .map(|parameter| format!("`{}`: {}", parameter.name, parameter.takes.describe()))
                .collect();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                function.signature(),
                takes.join("; "),
                function.returns,
                function.summary.replace('|', "\\|")
            );
        }
        text.push('\n');
    }
    text
}
