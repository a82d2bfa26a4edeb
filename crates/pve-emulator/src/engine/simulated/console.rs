//! The text a guest has put on its screen, newest kept.

/// Most text kept, in bytes; a hundred guests at once must stay small.
const LIMIT: usize = 48 * 1024;

/// A bounded log of console text.
#[derive(Clone, Debug, Default)]
pub(super) struct Console {
    text: String,
    changes: u64,
}

impl Console {
    /// Adds one line.
    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        self.changes += 1;
        self.text.push_str(line.as_ref());
        self.text.push('\n');
        if self.text.len() > LIMIT {
            let cut = self.text.len() - LIMIT * 3 / 4;
            // Whole lines only, so that the rest stays valid UTF-8 and readable.
            let cut = self.text.as_bytes()[cut..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(0, |at| cut + at + 1);
            self.text.drain(..cut);
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn clear(&mut self) {
        self.changes += 1;
        self.text.clear();
    }

    /// Counts every change.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_lines() {
        let mut console = Console::default();
        for number in 0..20_000 {
            console.line(format!("line {number} ü"));
        }
        assert!(console.text().len() <= LIMIT);
        assert!(console.text().starts_with("line "));
        assert!(console.text().ends_with("line 19999 ü\n"));
    }
}
