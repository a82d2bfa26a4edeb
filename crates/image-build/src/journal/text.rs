//! The journal in a description: written behind the text for people, found again, taken out.

use super::Journal;

/// What the journal's line begins with; the number is the version of what follows.
const BEGIN: &str = "<!-- k3simage-journal ";
const VERSION: &str = "1";
const END: &str = " -->";

/// Why a description's journal cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JournalError {
    /// A version of this program that is newer than this one.
    #[error(
        "it is of version {0}, which this k3simage does not know: use the one that began the build, or a later one"
    )]
    Version(String),
    /// Someone changed it.
    #[error(
        "it cannot be read ({0}): someone changed the VM's description; put that back, or look at the VM and delete it yourself"
    )]
    Unreadable(String),
}

/// The text for people, with the journal behind it.
pub(crate) fn write(people: &str, journal: &Journal) -> String {
    // Within JSON a `>` stands only in strings, where it may be written so; the comment then ends where it should.
    let json = serde_json::to_string(journal)
        .unwrap_or_default()
        .replace('>', "\\u003e");
    format!("{}\n\n{BEGIN}{VERSION} {json}{END}", strip(people))
}

/// The journal of a description, if it holds one.
pub(crate) fn read(description: &str) -> Result<Option<Journal>, JournalError> {
    let Some(line) = line_of(description) else {
        return Ok(None);
    };
    let rest = line.trim().strip_prefix(BEGIN).unwrap_or_default();
    let (version, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if version != VERSION {
        return Err(JournalError::Version(version.chars().take(20).collect()));
    }
    let json = rest
        .strip_suffix(END)
        .ok_or_else(|| JournalError::Unreadable("its end is missing".to_owned()))?;
    serde_json::from_str(json)
        .map(Some)
        .map_err(|error| JournalError::Unreadable(error.to_string()))
}

/// The text for people alone.
pub(crate) fn strip(description: &str) -> String {
    let kept: Vec<&str> = description.lines().filter(|line| !is_journal(line)).collect();
    kept.join("\n").trim_end().to_owned()
}

fn is_journal(line: &str) -> bool {
    line.trim_start().starts_with(BEGIN)
}

/// The last one counts: a person's text in front may quote another.
fn line_of(description: &str) -> Option<&str> {
    description.lines().rfind(|line| is_journal(line))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Inputs;
    use super::*;

    pub(crate) fn journal(image: &str, step: &str) -> Journal {
        Journal {
            build: "7f3a12bc".to_owned(),
            run: "4f0c7b1e-0000-4000-8000-000000000000".to_owned(),
            image: image.to_owned(),
            vmid: "9000".parse().unwrap(),
            step: step.to_owned(),
            provisioned: 2,
            holder: "0badcafe".to_owned(),
            lease: "2026-11-25T22:00:00Z".parse().unwrap(),
            oemdrv: Some("local:iso/k3simage-build-7f3a12bc.iso".parse().unwrap()),
            login: None,
            boots: None,
            replacing: None,
            inputs: Inputs::default(),
        }
    }

    #[test]
    fn it_stands_in_one_line_behind_the_text_for_people() {
        let text = write("**alma9** is being built.\n", &journal("alma9", "install"));
        assert_eq!(
            text,
            "**alma9** is being built.\n\n<!-- k3simage-journal 1 {\"build\":\"7f3a12bc\",\
             \"run\":\"4f0c7b1e-0000-4000-8000-000000000000\",\"image\":\"alma9\",\"vmid\":9000,\"step\":\"install\",\
             \"provisioned\":2,\"holder\":\"0badcafe\",\"lease\":\"2026-11-25T22:00:00Z\",\
             \"oemdrv\":\"local:iso/k3simage-build-7f3a12bc.iso\",\"inputs\":{}} -->"
        );
        assert_eq!(strip(&text), "**alma9** is being built.");
        assert_eq!(
            write(&text, &journal("alma9", "seal"))
                .matches("k3simage-journal")
                .count(),
            1
        );
    }

    #[test]
    fn what_cannot_be_used_is_told_apart() {
        let good = write("text", &journal("alma9", "install"));
        assert_eq!(read("text | <!-- another comment -->"), Ok(None));
        assert_eq!(
            read(&good.replace("journal 1", "journal 2")),
            Err(JournalError::Version("2".to_owned()))
        );
        for (from, to) in [("-->", ""), ("\"vmid\":9000,", ""), ("9000", "9"), ("{", "[")] {
            assert!(
                matches!(read(&good.replace(from, to)), Err(JournalError::Unreadable(_))),
                "{from}"
            );
        }
        // What a later version of the same format adds is passed over.
        assert!(read(&good.replace("\"vmid\"", "\"new\":1,\"vmid\"")).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn any_name_comes_back(people in "[^\\r]*", image in ".*", step in ".*") {
            let written = journal(&image, &step);
            let text = write(&people, &written);
            prop_assert_eq!(read(&text).unwrap().unwrap(), written);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*", tail in ".*") {
            let _ = read(&text);
            let _ = read(&format!("{BEGIN}{text}"));
            let _ = read(&format!("{BEGIN}{VERSION} {{{text}{END}\n{tail}"));
        }
    }
}
