//! Words: quotes, parameters, substitutions.

use std::sync::Arc;

use super::{MAX_DEPTH, Parser, is_blank};
use crate::engine::simulated::shell::syntax::{Parameter, ParameterOp, Word, WordPart};

impl Parser {
    /// One word; `None` where none begins.
    pub(super) fn word(&mut self) -> Result<Option<Word>, String> {
        self.word_of(false)
    }

    /// The word behind `=~`: brackets and bars belong to it, and a backslash stays unless it carries a blank.
    pub(super) fn expression(&mut self) -> Result<Option<Word>, String> {
        self.word_of(true)
    }

    fn word_of(&mut self, expression: bool) -> Result<Option<Word>, String> {
        let mut parts: Word = Vec::new();
        let mut plain = String::new();
        let start = self.at;
        while let Some(c) = self.peek() {
            match c {
                c if is_blank(c) => break,
                ';' | '&' | '|' | '<' | '>' | '(' | ')' if !expression => break,
                '\\' => {
                    self.at += 1;
                    match self.next() {
                        Some('\n') => {}
                        Some(escaped) if expression && escaped != ' ' => {
                            flush(&mut plain, &mut parts);
                            parts.push(WordPart::Literal(format!("\\{escaped}")));
                        }
                        Some(escaped) => {
                            flush(&mut plain, &mut parts);
                            parts.push(WordPart::Literal(escaped.to_string()));
                        }
                        None => plain.push('\\'),
                    }
                }
                '\'' => {
                    flush(&mut plain, &mut parts);
                    self.at += 1;
                    let mut text = String::new();
                    loop {
                        match self.next() {
                            Some('\'') => break,
                            Some(inner) => text.push(inner),
                            None => return Err("unexpected EOF while looking for matching `''".to_owned()),
                        }
                    }
                    parts.push(WordPart::Literal(text));
                }
                '"' => {
                    flush(&mut plain, &mut parts);
                    self.at += 1;
                    // An empty pair of quotes is still a word.
                    parts.push(WordPart::Literal(String::new()));
                    self.double_quoted(&mut parts, Some('"'))?;
                }
                '$' | '`' => {
                    flush(&mut plain, &mut parts);
                    self.dollar(&mut parts, false)?;
                }
                c => {
                    plain.push(c);
                    self.at += 1;
                }
            }
        }
        flush(&mut plain, &mut parts);
        Ok((self.at > start).then_some(parts))
    }

    /// Text with expansions up to the closing quote, or to the end of the text.
    pub(super) fn double_quoted(&mut self, parts: &mut Word, close: Option<char>) -> Result<(), String> {
        let mut literal = String::new();
        loop {
            match self.peek() {
                None if close.is_none() => break,
                None => return Err("unexpected EOF while looking for matching `\"'".to_owned()),
                Some(c) if Some(c) == close => {
                    self.at += 1;
                    break;
                }
                Some('\\') => {
                    self.at += 1;
                    match self.next() {
                        Some('\n') => {}
                        Some(c @ ('$' | '`' | '\\')) => literal.push(c),
                        Some('"') if close == Some('"') => literal.push('"'),
                        Some('}') if close == Some('}') => literal.push('}'),
                        Some(c) => {
                            literal.push('\\');
                            literal.push(c);
                        }
                        None => literal.push('\\'),
                    }
                }
                Some('$' | '`') => {
                    if !literal.is_empty() {
                        parts.push(WordPart::Literal(std::mem::take(&mut literal)));
                    }
                    self.dollar(parts, true)?;
                }
                Some(c) => {
                    literal.push(c);
                    self.at += 1;
                }
            }
        }
        if !literal.is_empty() {
            parts.push(WordPart::Literal(literal));
        }
        Ok(())
    }

    /// `$name`, `${...}`, `$(...)`, `$((...))`, `` `...` ``, `$'...'`; a lone dollar is itself.
    fn dollar(&mut self, parts: &mut Word, quoted: bool) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("maximum nesting level exceeded".to_owned());
        }
        let result = self.expansion(parts, quoted);
        self.depth -= 1;
        result
    }

    fn expansion(&mut self, parts: &mut Word, quoted: bool) -> Result<(), String> {
        if self.eat("`") {
            let mut text = String::new();
            loop {
                match self.next() {
                    Some('`') => break,
                    Some('\\') if matches!(self.peek(), Some('`' | '\\' | '$')) => text.extend(self.next()),
                    Some(c) => text.push(c),
                    None => return Err("unexpected EOF while looking for matching ``'".to_owned()),
                }
            }
            let mut inner = Parser {
                text: text.chars().collect(),
                at: 0,
                heredocs: Vec::new(),
                depth: self.depth,
            };
            parts.push(WordPart::Substitution {
                list: Arc::new(inner.list(&[])?),
                quoted,
            });
            return Ok(());
        }
        self.at += 1;
        if self.eat("((") {
            let text = self.until_double_paren()?;
            parts.push(WordPart::Arithmetic(text));
        } else if self.eat("(") {
            let list = self.list(&[])?;
            if !self.eat(")") {
                return Err(self.unexpected());
            }
            parts.push(WordPart::Substitution {
                list: Arc::new(list),
                quoted,
            });
        } else if self.eat("{") {
            let parameter = self.braced()?;
            parts.push(WordPart::Parameter { parameter, quoted });
        } else if !quoted && self.peek() == Some('\'') {
            self.at += 1;
            parts.push(WordPart::Literal(self.ansi_quoted()?));
        } else {
            let name = self.parameter_name();
            if name.is_empty() {
                parts.push(WordPart::Literal("$".to_owned()));
            } else {
                parts.push(WordPart::Parameter {
                    parameter: Parameter {
                        name,
                        length: false,
                        op: None,
                    },
                    quoted,
                });
            }
        }
        Ok(())
    }

    fn parameter_name(&mut self) -> String {
        match self.peek() {
            Some(c) if matches!(c, '@' | '*' | '#' | '?' | '$' | '!' | '-') || c.is_ascii_digit() => {
                self.at += 1;
                c.to_string()
            }
            _ => {
                let mut name = String::new();
                while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                    self.at += 1;
                }
                name
            }
        }
    }

    fn braced(&mut self) -> Result<Parameter, String> {
        let length = self.peek() == Some('#') && self.peek_at(1) != Some('}');
        if length {
            self.at += 1;
        }
        let mut name = self.parameter_name();
        while name.chars().all(|c| c.is_ascii_digit())
            && !name.is_empty()
            && self.peek().is_some_and(|c| c.is_ascii_digit())
        {
            name.extend(self.next());
        }
        if name.is_empty() {
            return Err("bad substitution".to_owned());
        }
        if self.eat("}") {
            return Ok(Parameter { name, length, op: None });
        }
        for (operator, upper) in [(",,}", false), ("^^}", true)] {
            if self.eat(operator) {
                let op = Some(ParameterOp::Case { upper });
                return Ok(Parameter { name, length, op });
            }
        }
        let operator = [
            ":-", ":=", ":+", ":?", "-", "=", "+", "?", "##", "#", "%%", "%", "//", "/",
        ]
        .into_iter()
        .find(|operator| self.looking_at(operator));
        let Some(operator) = operator else {
            return Err("bad substitution".to_owned());
        };
        self.at += operator.len();
        let word = self.brace_word(operator.starts_with('/'))?;
        let op = match operator {
            ":-" | "-" => ParameterOp::Default {
                word,
                if_empty: operator.len() == 2,
            },
            ":=" | "=" => ParameterOp::Assign {
                word,
                if_empty: operator.len() == 2,
            },
            ":+" | "+" => ParameterOp::Alternative {
                word,
                if_empty: operator.len() == 2,
            },
            ":?" | "?" => ParameterOp::Error {
                word,
                if_empty: operator.len() == 2,
            },
            "#" | "##" => ParameterOp::StripPrefix {
                pattern: word,
                longest: operator.len() == 2,
            },
            "%" | "%%" => ParameterOp::StripSuffix {
                pattern: word,
                longest: operator.len() == 2,
            },
            _ => {
                let replacement = if self.eat("/") {
                    self.brace_word(false)?
                } else {
                    Vec::new()
                };
                ParameterOp::Replace {
                    pattern: word,
                    replacement,
                    all: operator == "//",
                }
            }
        };
        if self.eat("}") {
            Ok(Parameter {
                name,
                length,
                op: Some(op),
            })
        } else {
            Err("bad substitution".to_owned())
        }
    }

    /// The word inside `${...}` up to the brace (not eaten), or up to a slash.
    fn brace_word(&mut self, until_slash: bool) -> Result<Word, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        loop {
            match self.peek() {
                None => return Err("unexpected EOF while looking for matching `}'".to_owned()),
                Some('}') => break,
                Some('/') if until_slash => break,
                Some('\'') => {
                    flush(&mut plain, &mut parts);
                    self.at += 1;
                    let mut text = String::new();
                    loop {
                        match self.next() {
                            Some('\'') => break,
                            Some(c) => text.push(c),
                            None => return Err("unexpected EOF while looking for matching `''".to_owned()),
                        }
                    }
                    parts.push(WordPart::Literal(text));
                }
                Some('"') => {
                    flush(&mut plain, &mut parts);
                    self.at += 1;
                    self.double_quoted(&mut parts, Some('"'))?;
                }
                Some('\\') => {
                    self.at += 1;
                    flush(&mut plain, &mut parts);
                    parts.extend(self.next().map(|c| WordPart::Literal(c.to_string())));
                }
                Some('$' | '`') => {
                    flush(&mut plain, &mut parts);
                    self.dollar(&mut parts, true)?;
                }
                Some(c) => {
                    plain.push(c);
                    self.at += 1;
                }
            }
        }
        flush(&mut plain, &mut parts);
        Ok(parts)
    }

    fn ansi_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.next() {
                Some('\'') => return Ok(text),
                Some('\\') => match self.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some('0') => text.push('\0'),
                    Some(c @ ('\\' | '\'' | '"')) => text.push(c),
                    Some(c) => {
                        text.push('\\');
                        text.push(c);
                    }
                    None => return Err("unexpected EOF while looking for matching `''".to_owned()),
                },
                Some(c) => text.push(c),
                None => return Err("unexpected EOF while looking for matching `''".to_owned()),
            }
        }
    }

    pub(super) fn until_double_paren(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut depth = 0_usize;
        loop {
            match self.next() {
                Some(')') if depth == 0 && self.peek() == Some(')') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(c) => {
                    match c {
                        '(' => depth += 1,
                        ')' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    text.push(c);
                }
                None => return Err("unexpected EOF while looking for matching `)'".to_owned()),
            }
        }
    }
}

fn flush(plain: &mut String, parts: &mut Word) {
    if !plain.is_empty() {
        parts.push(WordPart::Plain(std::mem::take(plain)));
    }
}
