//! Lines of text out of what a terminal is sent.

use vte::{Params, Parser, Perform};

/// Longer lines are cut: a guest may print anything.
const MAX_LINE: usize = 1000;

/// Turns a guest's bytes into lines: control sequences are dropped, what moves the cursor elsewhere ends a line, and of a line
/// that is written over the last version counts.
#[derive(Default)]
pub struct ConsoleLines {
    parser: Parser,
    page: Page,
}

impl std::fmt::Debug for ConsoleLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleLines")
            .field("page", &self.page)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Page {
    line: String,
    length: usize,
    over: bool,
    lines: Vec<String>,
}

impl Page {
    fn end(&mut self) {
        let line = self.line.trim_end();
        if !line.is_empty() {
            self.lines.push(line.to_owned());
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.line.clear();
        self.length = 0;
        self.over = false;
    }
}

impl Perform for Page {
    fn print(&mut self, character: char) {
        if self.over {
            self.clear();
        }
        // Bidirectional controls reorder what a log shows.
        let reorders = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if self.length < MAX_LINE && !character.is_control() && !reorders {
            self.line.push(character);
            self.length += 1;
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' | 0x0b | 0x0c => self.end(),
            b'\r' => self.over = true,
            b'\t' => self.print(' '),
            0x08 if self.line.pop().is_some() => self.length -= 1,
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, _: &Params, _: &[u8], _: bool, action: char) {
        // Moves to another line, and erases.
        if matches!(action, 'A' | 'B' | 'E' | 'F' | 'H' | 'J' | 'd' | 'f') {
            self.end();
        }
    }
}

impl ConsoleLines {
    /// The lines that these bytes completed.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.parser.advance(&mut self.page, bytes);
        std::mem::take(&mut self.page.lines)
    }

    /// The line that has not ended yet: a prompt.
    pub fn rest(&self) -> &str {
        self.page.line.trim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_control_sequences() {
        let cases: [(&[&[u8]], &[&str]); 9] = [
            (&[b"one\r\ntwo\r\n"], &["one", "two"]),
            (&[b"spl", b"it\n"], &["split"]),
            (&[b"\x1b[1;32mgreen\x1b[0m\n"], &["green"]),
            (&[b"\x1b]0;title\x07shown\n"], &["shown"]),
            (&[b"10%\r20%\r100%\n"], &["100%"]),
            (&[b"menu\x1b[5;1Hsecond\n"], &["menu", "second"]),
            (&["\u{fc}b".as_bytes(), "er\u{202e}\n".as_bytes()], &["\u{fc}ber"]),
            (&[b"ab\x08c\n\n\n"], &["ac"]),
            (&[b"bad \xff\xfe utf\n"], &["bad \u{fffd}\u{fffd} utf"]),
        ];
        for (pieces, lines) in cases {
            let mut cleaner = ConsoleLines::default();
            let got: Vec<String> = pieces.iter().flat_map(|piece| cleaner.feed(piece)).collect();
            assert_eq!(got, lines, "{pieces:?}");
        }
        let mut cleaner = ConsoleLines::default();
        assert!(cleaner.feed(b"login: ").is_empty());
        assert_eq!(cleaner.rest(), "login:");
        assert_eq!(
            cleaner.feed(&[vec![b'x'; 5000], vec![b'\n']].concat())[0].len(),
            MAX_LINE
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_become_printable_lines(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let mut cleaner = ConsoleLines::default();
            for line in cleaner.feed(&bytes) {
                proptest::prop_assert!(!line.chars().any(char::is_control), "{line:?}");
                proptest::prop_assert!(line.chars().count() <= MAX_LINE);
            }
        }
    }
}
