//! Redirections and here-documents.

use std::sync::Arc;

use super::{HereDoc, Parser, is_blank};
use crate::engine::simulated::shell::syntax::{Redirect, RedirectKind, Word, WordPart};

impl Parser {
    pub(super) fn redirect(&mut self) -> Result<Option<Redirect>, String> {
        let start = self.at;
        let mut digits = String::new();
        while let Some(c) = self.peek().filter(char::is_ascii_digit) {
            digits.push(c);
            self.at += 1;
        }
        let both = digits.is_empty() && self.looking_at("&>");
        if both {
            self.at += 1;
        }
        let operator = ["<<<", "<<-", "<<", "<&", "<>", "<", ">>", ">&", ">|", ">"]
            .into_iter()
            .find(|operator| self.looking_at(operator));
        let Some(operator) = operator else {
            self.at = start;
            return Ok(None);
        };
        self.at += operator.len();
        let default = u32::from(!operator.starts_with('<'));
        let fd = digits.parse().unwrap_or(default);
        self.skip_blanks();
        if operator == "<<" || operator == "<<-" {
            let (delimiter, quoted) = self.heredoc_delimiter()?;
            let doc = Arc::new(HereDoc {
                delimiter,
                quoted,
                strip_tabs: operator == "<<-",
                body: std::sync::OnceLock::new(),
            });
            self.heredocs.push(Arc::clone(&doc));
            let body = self.heredoc_ahead(&doc)?;
            return Ok(Some(Redirect {
                fd,
                kind: RedirectKind::Here(body),
            }));
        }
        let word = self.word()?.ok_or_else(|| self.unexpected())?;
        let kind = match operator {
            "<" | "<>" => RedirectKind::Read(word),
            "<<<" => RedirectKind::HereString(word),
            ">>" => RedirectKind::Append { word, both },
            ">&" | "<&" => RedirectKind::Duplicate(word),
            _ => RedirectKind::Write { word, both },
        };
        Ok(Some(Redirect { fd, kind }))
    }

    fn heredoc_delimiter(&mut self) -> Result<(String, bool), String> {
        let mut delimiter = String::new();
        let mut quoted = false;
        while let Some(c) = self.peek() {
            match c {
                '\'' | '"' => {
                    quoted = true;
                    self.at += 1;
                    loop {
                        match self.next() {
                            Some(end) if end == c => break,
                            Some(inner) => delimiter.push(inner),
                            None => return Err(format!("unexpected EOF while looking for matching `{c}'")),
                        }
                    }
                }
                '\\' => {
                    quoted = true;
                    self.at += 1;
                }
                c if is_blank(c) || matches!(c, ';' | '&' | '|' | '<' | '>' | '(' | ')') => break,
                c => {
                    delimiter.push(c);
                    self.at += 1;
                }
            }
        }
        if delimiter.is_empty() {
            Err(self.unexpected())
        } else {
            Ok((delimiter, quoted))
        }
    }

    /// The body of a here-document whose operator was just read. It lies behind the end of this line, and behind the
    /// bodies of the documents that were announced before it on the same line; reading it does not move the parser.
    fn heredoc_ahead(&mut self, doc: &Arc<HereDoc>) -> Result<Word, String> {
        let here = self.at;
        let pending = self.heredocs.clone();
        // Words may hold quoted newlines; a scan to the next bare newline is what bash's reader does too.
        while self.peek().is_some_and(|c| c != '\n') {
            self.at += 1;
        }
        if self.peek().is_none() {
            return Err(doc.unended());
        }
        let fresh: Vec<Arc<HereDoc>> = pending
            .iter()
            .map(|old| {
                Arc::new(HereDoc {
                    delimiter: old.delimiter.clone(),
                    quoted: old.quoted,
                    strip_tabs: old.strip_tabs,
                    body: std::sync::OnceLock::new(),
                })
            })
            .collect();
        self.heredocs.clone_from(&fresh);
        self.newline()?;
        self.at = here;
        self.heredocs = pending;
        let body = fresh.last().and_then(|doc| doc.body.get()).cloned().unwrap_or_default();
        if doc.quoted {
            return Ok(vec![WordPart::Literal(body)]);
        }
        let mut inner = Parser {
            text: body.chars().collect(),
            at: 0,
            heredocs: Vec::new(),
            depth: self.depth,
        };
        let mut parts = Vec::new();
        inner.double_quoted(&mut parts, None)?;
        Ok(parts)
    }
}
