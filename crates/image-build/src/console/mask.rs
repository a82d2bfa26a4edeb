//! `Masker`: secrets out of a console's lines, also those that a line's end has broken.

use secrecy::{ExposeSecret as _, SecretString};

use crate::provision::{MASK, SHORTEST_MASKED};

/// A piece of a secret at the end of a line counts from so many characters on; shorter ones end ordinary lines every day.
const SHORTEST_PIECE: usize = SHORTEST_MASKED;

/// Masks secrets in lines that belong to one stream. The installer breaks its texts after 80 columns, and what moves the cursor ends a
/// line too, so a secret is looked for over the ends of lines, and blanks count for nothing.
///
/// A line is shown when it is read, before the next one is known. So its end is masked where a secret could have begun there.
pub(crate) struct Masker {
    /// The lines of the secrets, without their blanks.
    parts: Vec<SecretString>,
    /// Characters of the longest.
    longest: usize,
    /// The end of what was read, without blanks.
    before: String,
}

impl Masker {
    pub(crate) fn new(secrets: &[SecretString]) -> Self {
        let lines = secrets.iter().flat_map(|secret| secret.expose_secret().lines());
        let parts = lines.map(|line| line.split_whitespace().collect::<String>());
        let parts: Vec<SecretString> = parts
            .filter(|part| part.len() >= SHORTEST_MASKED)
            .map(SecretString::from)
            .collect();
        let longest = parts.iter().map(|part| part.expose_secret().chars().count()).max();
        Self {
            parts,
            longest: longest.unwrap_or(0),
            before: String::new(),
        }
    }

    /// The next line of the stream.
    pub(crate) fn line(&mut self, line: &str) -> String {
        let (masked, before) = self.look(&self.before, line);
        self.before = before;
        masked
    }

    /// A line that has not ended yet.
    pub(crate) fn rest(&self, rest: &str) -> String {
        self.look(&self.before, rest).0
    }

    /// A line that has come between others: what they broke may go on after it.
    pub(crate) fn aside(&self, line: &str) -> String {
        self.look("", line).0
    }

    /// The line without what is secret, and the end of the stream after it.
    fn look(&self, before: &str, line: &str) -> (String, String) {
        let own = line.char_indices().filter(|(_, c)| !c.is_whitespace());
        let stream: Vec<(char, Option<usize>)> = before
            .chars()
            .map(|c| (c, None))
            .chain(own.map(|(at, c)| (c, Some(at))))
            .collect();
        let mut secret = vec![false; line.len()];
        for part in &self.parts {
            let part = part.expose_secret();
            let length = part.chars().count();
            for start in 0..stream.len() {
                let seen = stream
                    .get(start..(start + length).min(stream.len()))
                    .unwrap_or_default();
                if seen.len() < length.min(SHORTEST_PIECE)
                    || !seen.iter().map(|(c, _)| *c).eq(part.chars().take(seen.len()))
                {
                    continue;
                }
                let inside = || seen.iter().filter_map(|(c, at)| Some((at.as_ref()?, c.len_utf8())));
                if let (Some((first, _)), Some((last, size))) = (inside().next(), inside().next_back()) {
                    // With the blanks in between.
                    secret.get_mut(*first..last + size).unwrap_or_default().fill(true);
                }
            }
        }
        let mut masked = String::with_capacity(line.len());
        let mut inside = false;
        for (at, c) in line.char_indices() {
            let hidden = secret.get(at).copied().unwrap_or(false);
            match (hidden, inside) {
                (true, false) => masked.push_str(MASK),
                (true, true) => {}
                (false, _) => masked.push(c),
            }
            inside = hidden;
        }
        let kept = stream.len().saturating_sub(self.longest.saturating_sub(1));
        let before = stream.iter().skip(kept).map(|(c, _)| *c).collect();
        (masked, before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::console::clean::ConsoleLines;

    const SECRET: &str = "canary-0123456789-token";

    fn masker(secrets: &[&str]) -> Masker {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        Masker::new(&secrets)
    }

    fn masked(secrets: &[&str], lines: &[&str]) -> Vec<String> {
        let mut masker = masker(secrets);
        lines.iter().map(|line| masker.line(line)).collect()
    }

    #[test]
    fn secrets_in_one_line_and_over_several() {
        let m = MASK;
        let cases: [(&[&str], &[&str], &[&str]); 12] = [
            (
                &[SECRET],
                &["token=canary-0123456789-token."],
                &[&format!("token={m}.")],
            ),
            (
                &[SECRET],
                &["url: canary-0123", "456789-token end"],
                &[&format!("url: {m}"), &format!("{m} end")],
            ),
            // Indented, as a text in a frame is.
            (
                &[SECRET],
                &["url: canary-0123  ", "    456789-token"],
                &[&format!("url: {m}  "), &format!("    {m}")],
            ),
            (
                &[SECRET],
                &["canary-0", "123456", "789-token", "token"],
                &[m, m, m, "token"],
            ),
            // So little of it at the end of a line is shown: nothing tells it from another text yet.
            (&[SECRET], &["url: can", "ary-0123456789-token"], &["url: can", m]),
            (&[SECRET], &["canary-0123456789-toke", "n"], &[m, m]),
            (&[SECRET], &["the canary-", "bird"], &[&format!("the {m}"), "bird"]),
            (&[SECRET], &["the canary-bird"], &["the canary-bird"]),
            (
                &["pass word"],
                &["pass word", "password", "pass", "word"],
                &[m, m, m, m],
            ),
            (
                &["first line\nsecond line"],
                &["first line", "second", "line"],
                &[m, m, m],
            ),
            (&["abc", ""], &["abc"], &["abc"]),
            (
                &["\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}"],
                &["\u{e4}\u{fc}\u{fc}\u{fc}\u{fc}", "\u{fc}\u{e4}"],
                &[&format!("\u{e4}{m}"), &format!("{m}\u{e4}")],
            ),
        ];
        for (secrets, lines, wanted) in cases {
            assert_eq!(masked(secrets, lines), wanted, "{lines:?}");
        }
    }

    #[test]
    fn a_line_in_between_tears_nothing() {
        let mut masker = masker(&[SECRET]);
        assert_eq!(masker.line("url: canary-0123"), format!("url: {MASK}"));
        assert_eq!(
            masker.aside("[  301.118272] audit: canary-0123456789-token"),
            format!("[  301.118272] audit: {MASK}")
        );
        assert_eq!(masker.rest("456789-to"), MASK);
        assert_eq!(masker.line("456789-token ok"), format!("{MASK} ok"));
    }

    proptest! {
        /// However a terminal breaks it: what is left of it is shorter than what counts as a piece.
        #[test]
        fn a_console_that_breaks_anywhere_shows_no_secret(
            before in "[ -~]{0,90}",
            after in "[ -~]{0,90}",
            width in 1_usize..100,
            end in prop::sample::select(vec!["\r\n", "\n", "\r\n    ", "\x1b[K\r\n", "\x1b[5;1H", "\x1b[1m\r\n\x1b[0m"]),
        ) {
            let text: Vec<char> = format!("{before}{SECRET}{after}").chars().collect();
            let broken: Vec<String> = text.chunks(width).map(|piece| piece.iter().collect()).collect();
            let mut lines = ConsoleLines::default().feed(format!("{}\n", broken.join(end)).as_bytes());
            let mut masker = masker(&[SECRET]);
            for line in &mut lines {
                *line = masker.line(line);
            }
            let shown: String = lines.concat().split_whitespace().collect();
            let at = |from: usize| SECRET.get(from..from + SHORTEST_PIECE).unwrap_or_default();
            // The first characters may be shown, where the break comes so early; the texts around may hold the same.
            for from in SHORTEST_PIECE..=SECRET.len() - SHORTEST_PIECE {
                prop_assert!(before.contains(at(from)) || after.contains(at(from)) || !shown.contains(at(from)), "{lines:?}");
            }
        }
    }
}
