//! What a person reads: the distinct sentences of all recorded errors, kept as snapshots, one file for each kind.

use std::collections::{BTreeMap, BTreeSet};

use super::{kinds::failed_tasks, recorded};
use crate::error::Error;

/// A sentence that a person cannot use: several lines, control characters, too long, or without words.
pub(super) fn fault_of(error: &Error) -> Option<String> {
    let text = error.to_string();
    let bad = text.chars().any(char::is_control) || text.len() > 5000 || text.contains("no reason given");
    bad.then(|| format!("{text:?} is no sentence"))
}

/// What is different in each run, or in each caller's request, is masked; the request itself is left out.
fn sentence(error: &Error) -> String {
    let text = match error {
        Error::Api { .. } => error.to_string().splitn(3, ' ').nth(2).unwrap_or_default().to_owned(),
        other => other.to_string(),
    };
    let masked = mask(&text);
    match error.advice() {
        Some(advice) => format!("{masked}\n    -> {advice}"),
        None => masked,
    }
}

/// What differs from run to run, so that one sentence stands here once.
fn mask(text: &str) -> String {
    let masks = [
        (r"UPID:[^ ]+", "UPID"),
        (r"[0-9a-f]{32,64}", "HEX"),
        (r"\b(VM|VMID|CT|on) [0-9]{3,9}\b", "$1 N"),
        (
            r"(vm-|base-|/vms/|qemu-server/|lock-|tmp_dwnl\.|images/|local:|port '|offset |size )[0-9]+",
            "${1}N",
        ),
        (r"(task qm\w+|task imgdel|task vz\w+) [0-9]+", "$1 N"),
    ];
    masks.iter().fold(text.to_owned(), |text, (from, to)| {
        let expression = regex_lite::Regex::new(from).expect("an expression");
        expression.replace_all(&text, *to).into_owned()
    })
}

#[test]
fn each_sentence_was_read_by_a_person() {
    let all = recorded();
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let api = all.iter().filter_map(|exchange| exchange.decode().err());
    for error in api.filter(|error| error.status().is_some()).chain(failed_tasks(all)) {
        kinds
            .entry(format!("{:?}", error.kind()))
            .or_default()
            .insert(sentence(&error));
    }
    for (kind, sentences) in kinds {
        let whole: Vec<String> = sentences.into_iter().collect();
        insta::assert_snapshot!(kind, whole.join("\n"));
    }
}
