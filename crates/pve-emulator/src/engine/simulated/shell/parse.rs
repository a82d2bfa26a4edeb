//! Text to syntax tree: the part of the POSIX shell (and of bash) that provisioners and kickstarts use.

use std::sync::Arc;

use super::syntax::{AndOr, Assign, Command, Compound, Item, List, Pipeline, Simple, WordPart};

mod redirects;
mod words;

/// Deepest nesting taken; a hostile text must not exhaust the stack.
const MAX_DEPTH: usize = 64;

/// Parses a whole script.
///
/// # Errors
/// One line in bash's words, without the shell's name.
pub(super) fn parse(text: &str) -> Result<List, String> {
    let mut parser = Parser {
        text: text.chars().collect(),
        at: 0,
        heredocs: Vec::new(),
        depth: 0,
    };
    let list = parser.list(&[])?;
    match parser.peek() {
        None => Ok(list),
        Some(c) => Err(format!("syntax error near unexpected token `{c}'")),
    }
}

struct Parser {
    text: Vec<char>,
    at: usize,
    /// Here-documents whose bodies begin after the next newline.
    heredocs: Vec<Arc<HereDoc>>,
    depth: usize,
}

/// A here-document while its body is still to come.
struct HereDoc {
    delimiter: String,
    quoted: bool,
    strip_tabs: bool,
    body: std::sync::OnceLock<String>,
}

impl HereDoc {
    /// What bash says of a document without its end. A quoted delimiter may hold newlines; a complaint is one line.
    fn unended(&self) -> String {
        format!(
            "here-document delimited by end-of-file (wanted `{}')",
            self.delimiter.replace('\n', "\\n")
        )
    }
}

const KEYWORD_ENDS: &[&str] = &["then", "elif", "else", "fi", "do", "done", "esac", "}"];

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn peek_at(&self, offset: usize) -> Option<char> {
        self.text.get(self.at + offset).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn looking_at(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(offset, c)| self.peek_at(offset) == Some(c))
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.looking_at(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn unexpected(&self) -> String {
        match self.peek() {
            None => "syntax error: unexpected end of file".to_owned(),
            Some('\n') => "syntax error near unexpected token `newline'".to_owned(),
            Some(c) => format!("syntax error near unexpected token `{c}'"),
        }
    }

    /// Blanks, line continuations and comments within a line.
    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('\\') if self.peek_at(1) == Some('\n') => self.at += 2,
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// A newline, and the here-documents that wait behind it.
    fn newline(&mut self) -> Result<bool, String> {
        if self.peek() != Some('\n') {
            return Ok(false);
        }
        self.at += 1;
        for doc in std::mem::take(&mut self.heredocs) {
            let mut body = String::new();
            loop {
                if self.at >= self.text.len() {
                    return Err(doc.unended());
                }
                let end = self.text[self.at..]
                    .iter()
                    .position(|c| *c == '\n')
                    .map_or(self.text.len(), |offset| self.at + offset);
                let line: String = self.text[self.at..end].iter().collect();
                self.at = (end + 1).min(self.text.len());
                let line = if doc.strip_tabs {
                    line.trim_start_matches('\t')
                } else {
                    &line
                };
                if line == doc.delimiter {
                    break;
                }
                body.push_str(line);
                body.push('\n');
            }
            let _ = doc.body.set(body);
        }
        Ok(true)
    }

    fn skip_newlines(&mut self) -> Result<(), String> {
        loop {
            self.skip_blanks();
            if !self.newline()? {
                return Ok(());
            }
        }
    }

    /// The keyword here, if the next word is one of the given.
    fn keyword(&self, words: &[&str]) -> Option<String> {
        let mut word = String::new();
        let mut offset = 0;
        while let Some(c) = self.peek_at(offset) {
            if is_blank(c) || matches!(c, ';' | '&' | '|' | '(' | ')' | '<' | '>') {
                break;
            }
            word.push(c);
            offset += 1;
        }
        words.contains(&word.as_str()).then_some(word)
    }

    fn eat_keyword(&mut self, word: &str) -> Result<(), String> {
        self.skip_newlines()?;
        if self.keyword(&[word]).is_some() {
            self.at += word.chars().count();
            return Ok(());
        }
        Err(self.unexpected())
    }

    /// Commands up to one of the ending words, `)` or the end of the text.
    fn list(&mut self, ends: &[&str]) -> Result<List, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("maximum nesting level exceeded".to_owned());
        }
        let mut items = Vec::new();
        loop {
            self.skip_newlines()?;
            if matches!(self.peek(), None | Some(')')) || self.looking_at(";;") || self.keyword(ends).is_some() {
                break;
            }
            if self.keyword(KEYWORD_ENDS).is_some() {
                return Err(self.unexpected());
            }
            let and_or = self.and_or()?;
            self.skip_blanks();
            let mut background = false;
            match self.peek() {
                Some('&') => {
                    self.at += 1;
                    background = true;
                }
                Some(';') if !self.looking_at(";;") => self.at += 1,
                Some('\n' | ')' | ';') | None => {}
                _ => return Err(self.unexpected()),
            }
            items.push(Item { and_or, background });
        }
        self.depth -= 1;
        Ok(items)
    }

    fn and_or(&mut self) -> Result<AndOr, String> {
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            self.skip_blanks();
            let and = if self.eat("&&") {
                true
            } else if self.eat("||") {
                false
            } else {
                return Ok(AndOr { first, rest });
            };
            self.skip_newlines()?;
            rest.push((and, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, String> {
        self.skip_blanks();
        let mut negated = false;
        while self.keyword(&["!"]).is_some() {
            self.at += 1;
            negated = !negated;
            self.skip_blanks();
        }
        let mut commands = vec![self.command()?];
        loop {
            self.skip_blanks();
            if self.peek() != Some('|') || self.peek_at(1) == Some('|') {
                return Ok(Pipeline { negated, commands });
            }
            self.at += 1;
            if self.peek() == Some('&') {
                return Err("`|&' is not supported".to_owned());
            }
            self.skip_newlines()?;
            commands.push(self.command()?);
        }
    }

    fn command(&mut self) -> Result<Command, String> {
        self.skip_blanks();
        let compound = match self.keyword(&["if", "for", "while", "until", "case", "{", "function", "[["]) {
            Some(word) => {
                self.at += word.chars().count();
                match word.as_str() {
                    "if" => self.if_clause()?,
                    "for" => self.for_clause()?,
                    "case" => self.case_clause()?,
                    "{" => {
                        let list = self.list(&["}"])?;
                        self.eat_keyword("}")?;
                        Compound::Brace(list)
                    }
                    "[[" => self.double_bracket()?,
                    "function" => {
                        self.skip_blanks();
                        let name = self.name();
                        self.skip_blanks();
                        self.eat("()");
                        return self.function(name);
                    }
                    loop_word => {
                        let condition = self.list(&["do"])?;
                        Compound::While {
                            until: loop_word == "until",
                            condition,
                            body: self.do_group()?,
                        }
                    }
                }
            }
            None if self.looking_at("((") => {
                self.at += 2;
                let expression = self.until_double_paren()?;
                Compound::Arithmetic(expression)
            }
            None if self.peek() == Some('(') => {
                self.at += 1;
                let list = self.list(&[])?;
                if !self.eat(")") {
                    return Err(self.unexpected());
                }
                Compound::Subshell(list)
            }
            None => return self.simple(),
        };
        let mut redirects = Vec::new();
        loop {
            self.skip_blanks();
            match self.redirect()? {
                Some(redirect) => redirects.push(redirect),
                None => return Ok(Command::Compound(compound, redirects)),
            }
        }
    }

    fn function(&mut self, name: String) -> Result<Command, String> {
        self.skip_newlines()?;
        match self.command()? {
            Command::Compound(body, _) if !name.is_empty() => Ok(Command::Function(name, Arc::new(body))),
            _ => Err("syntax error: function body expected".to_owned()),
        }
    }

    fn if_clause(&mut self) -> Result<Compound, String> {
        let mut branches = Vec::new();
        loop {
            let condition = self.list(&["then"])?;
            self.eat_keyword("then")?;
            let body = self.list(&["elif", "else", "fi"])?;
            branches.push((condition, body));
            self.skip_newlines()?;
            if self.keyword(&["elif"]).is_some() {
                self.at += 4;
                continue;
            }
            let mut otherwise = None;
            if self.keyword(&["else"]).is_some() {
                self.at += 4;
                otherwise = Some(self.list(&["fi"])?);
            }
            self.eat_keyword("fi")?;
            return Ok(Compound::If { branches, otherwise });
        }
    }

    fn do_group(&mut self) -> Result<List, String> {
        self.eat_keyword("do")?;
        let body = self.list(&["done"])?;
        self.eat_keyword("done")?;
        Ok(body)
    }

    fn for_clause(&mut self) -> Result<Compound, String> {
        self.skip_blanks();
        let name = self.name();
        if name.is_empty() {
            return Err(self.unexpected());
        }
        self.skip_newlines()?;
        let mut words = None;
        if self.keyword(&["in"]).is_some() {
            self.at += 2;
            let mut found = Vec::new();
            loop {
                self.skip_blanks();
                match self.word()? {
                    Some(word) => found.push(word),
                    None => break,
                }
            }
            words = Some(found);
        }
        self.skip_blanks();
        if self.peek() == Some(';') {
            self.at += 1;
        }
        Ok(Compound::For {
            name,
            words,
            body: self.do_group()?,
        })
    }

    fn case_clause(&mut self) -> Result<Compound, String> {
        self.skip_blanks();
        let word = self.word()?.ok_or_else(|| self.unexpected())?;
        self.eat_keyword("in")?;
        let mut arms = Vec::new();
        loop {
            self.skip_newlines()?;
            if self.keyword(&["esac"]).is_some() {
                self.at += 4;
                return Ok(Compound::Case { word, arms });
            }
            self.eat("(");
            let mut patterns = Vec::new();
            loop {
                self.skip_blanks();
                patterns.push(self.word()?.ok_or_else(|| self.unexpected())?);
                self.skip_blanks();
                match self.next() {
                    Some('|') => {}
                    Some(')') => break,
                    _ => {
                        self.at = self.at.saturating_sub(1);
                        return Err(self.unexpected());
                    }
                }
            }
            let body = self.list(&["esac"])?;
            self.eat(";;");
            arms.push((patterns, body));
        }
    }

    /// `[[ ... ]]`: its words, with `&&`, `||`, `<`, `>`, `(` and `)` as words of their own.
    fn double_bracket(&mut self) -> Result<Compound, String> {
        let mut words = Vec::new();
        loop {
            self.skip_newlines()?;
            if self.keyword(&["]]"]).is_some() {
                self.at += 2;
                return Ok(Compound::Test(words));
            }
            let operator = ["&&", "||", "<", ">", "(", ")"]
                .into_iter()
                .find(|operator| self.looking_at(operator));
            if let Some(operator) = operator {
                self.at += operator.len();
                words.push(vec![WordPart::Plain(operator.to_owned())]);
                continue;
            }
            let word = self.word()?.ok_or_else(|| self.unexpected())?;
            let matches = matches!(word.as_slice(), [WordPart::Plain(operator)] if operator == "=~");
            words.push(word);
            if matches {
                self.skip_blanks();
                words.push(self.expression()?.ok_or_else(|| self.unexpected())?);
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self
            .peek()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_' || (*c == '-' && !name.is_empty()))
        {
            name.push(c);
            self.at += 1;
        }
        name
    }

    fn simple(&mut self) -> Result<Command, String> {
        let start = self.at;
        let mut simple = Simple::default();
        loop {
            self.skip_blanks();
            if let Some(redirect) = self.redirect()? {
                simple.redirects.push(redirect);
                continue;
            }
            if simple.words.is_empty()
                && let Some(assign) = self.assignment()?
            {
                simple.assigns.push(assign);
                continue;
            }
            match self.word()? {
                Some(word) => simple.words.push(word),
                None => break,
            }
            if simple.words.len() == 1 && self.looking_at("(") {
                if let [WordPart::Plain(name)] = simple.words[0].as_slice() {
                    let name = name.clone();
                    self.at += 1;
                    self.skip_blanks();
                    if !self.eat(")") {
                        return Err(self.unexpected());
                    }
                    return self.function(name);
                }
                return Err(self.unexpected());
            }
        }
        if self.at == start {
            return Err(self.unexpected());
        }
        Ok(Command::Simple(simple))
    }

    /// `NAME=word`, `NAME+=word`.
    fn assignment(&mut self) -> Result<Option<Assign>, String> {
        let mut offset = 0;
        while self
            .peek_at(offset)
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || (offset > 0 && c.is_ascii_digit()))
        {
            offset += 1;
        }
        let append = self.peek_at(offset) == Some('+');
        let sign = offset + usize::from(append);
        if offset == 0 || self.peek_at(sign) != Some('=') {
            return Ok(None);
        }
        let name = self.text[self.at..self.at + offset].iter().collect();
        self.at += sign + 1;
        if self.peek() == Some('(') {
            return Err("arrays are not supported".to_owned());
        }
        let value = self.word()?.unwrap_or_default();
        Ok(Some(Assign { name, value, append }))
    }
}

/// What separates words in a script: a carriage return or a wide space does not.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n')
}
