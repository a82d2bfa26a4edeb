//! The shell's parsers with what must hold of them; see [`crate::fuzzing`].

use std::str::from_utf8;

use super::script::{Effect, effects};
use super::sed::Sed;
use super::{parse, sed};
use crate::engine::simulated::fuzzing::patterns;

/// Scripts: the grammar, effects, patterns and `sed`; in a time that grows with the length only.
///
/// # Panics
/// When a property does not hold.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    match parse::parse(text) {
        Ok(list) => assert!(list.len() <= text.len() + 1, "a command needs a character"),
        Err(complaint) => assert!(!complaint.contains('\n'), "{complaint:?} is one line"),
    }
    for effect in effects(text) {
        if let Effect::Command(words) = effect {
            assert!(!words.is_empty(), "a command has a name");
        }
    }
    patterns(text);
    let (script, input) = text.split_once('\n').unwrap_or((text, "a line\nanother\n"));
    if let Ok(sed) = Sed::new(&[script.to_owned()], script.len() % 2 == 0, false) {
        let _ = sed.apply(input);
    }
    let _ = sed::regex(script, false, true);
}
