//! What `termproxy` understands of what a terminal sends: `0:BYTES:data`, `1:COLUMNS:ROWS:`, `2`.
//!
//! # Source
//! `pve/traces/termproxy.json`: lengths count bytes, messages may be split anywhere, garbage is dropped.

/// Digits of a length or size; more is garbage.
const MAX_DIGITS: usize = 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before a message.
    #[default]
    Kind,
    /// Between kind and number.
    Colon(u8),
    /// In a number; how many more follow it.
    Number { kind: u8, more: u8 },
    /// In data; bytes still to come.
    Data(usize),
}

/// Takes the typed bytes out of a terminal's messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Input {
    at: At,
    digits: String,
}

impl Input {
    /// The next bytes of the connection; what was typed in them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut typed = Vec::new();
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            self.at = match self.at {
                At::Data(length) => {
                    let (data, after) = rest.split_at(length.min(rest.len()));
                    typed.extend(data);
                    rest = after;
                    let left = length - data.len();
                    self.at = if left == 0 { At::Kind } else { At::Data(left) };
                    continue;
                }
                At::Kind => match byte {
                    b'0' | b'1' => At::Colon(*byte),
                    // `2` only says that the client is there; anything else is garbage.
                    _ => At::Kind,
                },
                At::Colon(kind) => {
                    self.digits.clear();
                    match byte {
                        b':' => At::Number {
                            kind,
                            more: u8::from(kind == b'1'),
                        },
                        _ => At::Kind,
                    }
                }
                At::Number { kind, more } => self.number(kind, more, *byte),
            };
            rest = after;
        }
        typed
    }

    fn number(&mut self, kind: u8, more: u8, byte: u8) -> At {
        match byte {
            b'0'..=b'9' if self.digits.len() < MAX_DIGITS => {
                self.digits.push(char::from(byte));
                At::Number { kind, more }
            }
            b':' if more > 0 => {
                self.digits.clear();
                At::Number { kind, more: more - 1 }
            }
            b':' if kind == b'0' => match self.digits.parse::<usize>() {
                Ok(length) if length > 0 => At::Data(length),
                _ => At::Kind,
            },
            _ => At::Kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_messages() {
        let cases: [(&[&[u8]], &[u8]); 9] = [
            (&[b"0:14:echo hi there\n"], b"echo hi there\n"),
            (&[b"1:132:40:", b"0:18:busybox stty size\n"], b"busybox stty size\n"),
            (&[b"2", b"0:1:a"], b"a"),
            (&[b"0:5:ec", b"ho ", b"0:4:ok2\n"], b"echo ok2\n"),
            (&[b"garbage no frame\n", b"0:2:hi"], b"hi"),
            (&["0:4:\u{fc}\u{e9}".as_bytes()], "\u{fc}\u{e9}".as_bytes()),
            (&[b"0", b":", b"3", b":", b"x", b"yz"], b"xyz"),
            (&[b"0:0:", b"0:1:b"], b"b"),
            (&[b"0:99999999999999999999999:", b"0:1:c"], b"c"),
        ];
        for (pieces, typed) in cases {
            let mut input = Input::default();
            let got: Vec<u8> = pieces.iter().flat_map(|piece| input.feed(piece)).collect();
            assert_eq!(got, typed, "{pieces:?}");
        }
    }
}
