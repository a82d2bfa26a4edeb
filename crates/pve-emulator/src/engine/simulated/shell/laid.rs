//! What a recorded script lays down: the here-documents that it writes into files at its top level.
//!
//! Read out of the syntax tree: plain assignments are carried out, so that names in a document mean what they mean in the script;
//! a function whose body is one such command is followed where it is called. Conditions, downloads and everything else stay
//! unread.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::io::{Input, Io, Output};
use super::syntax::{Command, Compound, Item, RedirectKind, Simple};
use super::{Shell, parse};

impl Shell {
    /// Puts the files of a script into the tree.
    pub(super) async fn lay_down(&self, text: &str) {
        let Ok(list) = parse::parse(text) else { return };
        let io = Io {
            stdin: Input::empty(),
            stdout: Output::Null,
            stderr: Output::Null,
        };
        let mut reader = self.clone();
        let mut functions: BTreeMap<&str, &Arc<Compound>> = BTreeMap::new();
        for item in &list {
            match only(item) {
                Some(Command::Function(name, body)) => drop(functions.insert(name, body)),
                Some(Command::Simple(simple)) if simple.words.is_empty() => {
                    for assign in &simple.assigns {
                        if super::expand::has_substitution(&assign.value) {
                            continue;
                        }
                        if let Ok(value) = reader.expand_one(&assign.value, &io).await {
                            reader.set(&assign.name, value);
                        }
                    }
                }
                Some(Command::Simple(simple)) => {
                    reader.lay(simple, &io).await;
                    let Ok(words) = reader.expand_words(&simple.words, &io).await else {
                        continue;
                    };
                    let Some((name, args)) = words.split_first() else {
                        continue;
                    };
                    if let Some(inner) = functions.get(name.as_str()).and_then(|body| single(body)) {
                        let mut called = reader.clone();
                        called.positional = args.to_vec();
                        called.lay(inner, &io).await;
                    }
                }
                _ => {}
            }
        }
    }

    /// The file of one command with a here-document: the first absolute path among its words, or where its output goes.
    async fn lay(&mut self, simple: &Simple, io: &Io) {
        let document = simple.redirects.iter().find_map(|redirect| match &redirect.kind {
            RedirectKind::Here(word) => Some(word),
            _ => None,
        });
        let Some(document) = document else { return };
        let output = simple.redirects.iter().find_map(|redirect| match &redirect.kind {
            RedirectKind::Write { word, .. } => Some(word),
            _ => None,
        });
        let Ok(words) = self.expand_words(&simple.words, io).await else {
            return;
        };
        let Ok(content) = self.expand_one(document, io).await else {
            return;
        };
        let path = match output {
            Some(word) => self.expand_one(word, io).await.ok(),
            None => words.iter().skip(1).find(|word| word.starts_with('/')).cloned(),
        };
        let mode = words
            .iter()
            .filter(|word| (3..=4).contains(&word.len()))
            .find_map(|word| u32::from_str_radix(word, 8).ok());
        if let Some(path) = path.filter(|path| path.starts_with('/') && !path.starts_with("/dev/")) {
            self.host.system().files.put(&path, content, mode.unwrap_or(0o644));
        }
    }
}

/// The command of an item that is nothing but one command.
fn only(item: &Item) -> Option<&Command> {
    let first = &item.and_or.first;
    match (
        item.background,
        item.and_or.rest.as_slice(),
        first.negated,
        first.commands.as_slice(),
    ) {
        (false, [], false, [command]) => Some(command),
        _ => None,
    }
}

/// The one simple command that a function's body is.
fn single(body: &Compound) -> Option<&Simple> {
    match body {
        Compound::Brace(list) => match list.as_slice() {
            [item] => match only(item)? {
                Command::Simple(simple) => Some(simple),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}
