//! What stands in this crate's sources: its public functions, so that a list in a test cannot fall behind.

use regex_lite::Regex;

/// A public function of a type, or of a macro that types share.
#[derive(Debug)]
pub(crate) struct Function {
    /// `Type::name`.
    pub(crate) name: String,
    /// From `pub` to the body.
    pub(crate) signature: String,
}

/// The public functions in the files of these folders, below `src`; a name that ends in `.rs` is a file. Formatted sources are read,
/// which CI sees to: a type's block begins and ends at the first column.
pub(crate) fn public_functions(folders: &[&str]) -> Vec<Function> {
    texts(folders).iter().flat_map(|text| functions_of(text)).collect()
}

fn texts(folders: &[&str]) -> Vec<String> {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for folder in folders {
        let path = src.join(folder);
        if path.is_file() {
            files.push(path);
            continue;
        }
        for entry in std::fs::read_dir(path).expect("the sources are there") {
            let path = entry.expect("readable").path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read_to_string(file).expect("readable"))
        .collect()
}

fn functions_of(text: &str) -> Vec<Function> {
    let block = Regex::new(r"^(?:impl(?:<[^>]*>)?|macro_rules!) (\w+)(?:<[^>]*>)? \{$").expect("an expression");
    let function = Regex::new(r"^ +pub (?:const |async )*fn (\w+)").expect("an expression");
    let mut functions = Vec::new();
    let mut owner: Option<String> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(found) = block.captures(line) {
            owner = Some(found[1].to_owned());
        } else if line == "}" {
            owner = None;
        }
        let (Some(owner), Some(found)) = (&owner, function.captures(line)) else {
            continue;
        };
        let mut signature = line.trim().to_owned();
        while !signature.ends_with('{') {
            signature.push(' ');
            signature.push_str(lines.next().expect("a function has a body").trim());
        }
        functions.push(Function {
            name: format!("{owner}::{}", &found[1]),
            signature,
        });
    }
    functions
}

/// The public fields of the types in these folders: `Type.name`.
pub(crate) fn fields(folders: &[&str]) -> Vec<String> {
    let block = Regex::new(r"^pub struct (\w+)(?:<[^>]*>)? \{$").expect("an expression");
    let field = Regex::new(r"^    pub (\w+): ").expect("an expression");
    let mut fields = Vec::new();
    for text in texts(folders) {
        let mut owner: Option<String> = None;
        for line in text.lines() {
            if let Some(found) = block.captures(line) {
                owner = Some(found[1].to_owned());
            } else if line == "}" {
                owner = None;
            } else if let (Some(owner), Some(found)) = (&owner, field.captures(line)) {
                fields.push(format!("{owner}.{}", &found[1]));
            }
        }
    }
    fields
}
