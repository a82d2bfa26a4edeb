//! Bytes of output to lines of text.

use bytes::BytesMut;

use super::{OnLine, OutputStream};

/// A line longer than this is passed on in pieces, so that a guest which never ends a line cannot fill our memory.
const LONGEST_LINE: usize = 64 * 1024;

/// Collects bytes of one stream and hands on each complete line.
pub(super) struct LineSplitter<'a> {
    stream: OutputStream,
    pending: BytesMut,
    on_line: OnLine<'a>,
}

impl<'a> LineSplitter<'a> {
    pub(super) fn new(stream: OutputStream, on_line: OnLine<'a>) -> Self {
        Self {
            stream,
            pending: BytesMut::new(),
            on_line,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line = self.pending.split_to(end + 1);
            self.emit(&line[..end]);
        }
        while self.pending.len() > LONGEST_LINE {
            let piece = self.pending.split_to(LONGEST_LINE);
            self.emit(&piece);
        }
    }

    /// Hands on what is left: an output need not end with a line end.
    pub(super) fn finish(mut self) {
        if !self.pending.is_empty() {
            let rest = self.pending.split();
            self.emit(&rest);
        }
    }

    fn emit(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        // Progress bars overwrite themselves with CR: what a terminal would show at the end is the last part.
        let text = text.strip_suffix('\r').unwrap_or(&text);
        let shown = text.rsplit('\r').next().unwrap_or(text);
        (self.on_line)(self.stream, shown);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let seen = Mutex::new(Vec::new());
        let on_line = |_: OutputStream, line: &str| seen.lock().unwrap().push(line.to_owned());
        let mut splitter = LineSplitter::new(OutputStream::Stdout, &on_line);
        for chunk in chunks {
            splitter.push(chunk);
        }
        splitter.finish();
        seen.into_inner().unwrap()
    }

    #[test]
    fn lines_come_out_however_the_bytes_arrive() {
        let cases: &[(&[&[u8]], &[&str])] = &[
            (&[b"a\nb\n"], &["a", "b"]),
            (&[b"a", b"b\n", b"c"], &["ab", "c"]),
            (&[b"a\r\n\n"], &["a", ""]),
            (&[b"10%\r50%\r100%\n"], &["100%"]),
            (&[b"\xff\n"], &["\u{fffd}"]),
            (&[b"\xc3", b"\xbc\n"], &["ü"]),
            (&[], &[]),
        ];
        for (chunks, expected) in cases {
            assert_eq!(lines(chunks), *expected, "{chunks:?}");
        }
    }

    #[test]
    fn an_endless_line_is_cut() {
        let long = vec![b'x'; LONGEST_LINE * 2 + 7];
        let sizes: Vec<usize> = lines(&[&long]).iter().map(String::len).collect();
        assert_eq!(sizes, [LONGEST_LINE, LONGEST_LINE, 7]);
    }
}
