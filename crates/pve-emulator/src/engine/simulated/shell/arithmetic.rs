//! `$(( ... ))`: whole numbers, variables, the usual operators.

use super::Shell;
use super::io::Io;

/// Deepest parentheses taken.
const MAX_DEPTH: u32 = 32;

/// Binary operators by precedence, loosest first.
const LEVELS: &[&[&str]] = &[
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl Shell {
    /// Evaluates an expression; `NAME=expression` and `NAME++` assign.
    pub(super) async fn arithmetic(&mut self, text: &str, io: &Io) -> Result<i64, String> {
        // Parameters written with a dollar are expanded first, as the shell does.
        let expanded = match super::parse::parse(&format!("\"{text}\"")) {
            Ok(list) => match list.first().map(|item| &item.and_or.first.commands[0]) {
                Some(super::syntax::Command::Simple(simple)) if simple.words.len() == 1 => {
                    let word = simple.words[0].clone();
                    self.expand_one(&word, io).await?
                }
                _ => text.to_owned(),
            },
            Err(_) => text.to_owned(),
        };
        let trimmed = expanded.trim();
        for (suffix, step) in [("++", 1), ("--", -1)] {
            if let Some(name) = trimmed.strip_suffix(suffix).filter(|name| is_name(name)) {
                let old = self.number(name)?;
                self.set(name, old.wrapping_add(step).to_string());
                return Ok(old);
            }
        }
        if let Some((left, right)) = trimmed.split_once('=')
            && !right.starts_with('=')
        {
            let (name, operator) = match left.trim_end().strip_suffix(['+', '-', '*', '/', '%']) {
                Some(name) => (name.trim(), left.trim_end().chars().last()),
                None => (left.trim(), None),
            };
            if is_name(name) {
                let value = self.evaluate(right)?;
                let value = match operator {
                    Some(operator) => binary(&operator.to_string(), self.number(name)?, value)?,
                    None => value,
                };
                self.set(name, value.to_string());
                return Ok(value);
            }
        }
        self.evaluate(trimmed)
    }

    fn number(&self, name: &str) -> Result<i64, String> {
        let value = self.get(name).unwrap_or_default().trim().to_owned();
        if value.is_empty() {
            return Ok(0);
        }
        value
            .parse()
            .map_err(|_| format!("{value}: syntax error: operand expected"))
    }

    fn evaluate(&self, text: &str) -> Result<i64, String> {
        let mut evaluator = Evaluator {
            shell: self,
            text: text.as_bytes(),
            at: 0,
            depth: 0,
        };
        let value = evaluator.level(0)?;
        evaluator.skip();
        if evaluator.at < evaluator.text.len() {
            return Err(format!("{text}: syntax error in expression"));
        }
        Ok(value)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

struct Evaluator<'a> {
    shell: &'a Shell,
    text: &'a [u8],
    at: usize,
    depth: u32,
}

impl Evaluator<'_> {
    fn skip(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn level(&mut self, level: usize) -> Result<i64, String> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.level(level + 1)?;
        loop {
            self.skip();
            let rest = &self.text[self.at..];
            let Some(operator) = operators.iter().find(|operator| rest.starts_with(operator.as_bytes())) else {
                return Ok(left);
            };
            // A longer operator of a looser level begins with the same character.
            let longer = operator.len() == 1 && rest.len() > 1 && matches!(&rest[..2], b"||" | b"&&" | b"<<" | b">>");
            if longer {
                return Ok(left);
            }
            self.at += operator.len();
            let right = self.level(level + 1)?;
            left = binary(operator, left, right)?;
        }
    }

    fn unary(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("expression recursion level exceeded".to_owned());
        }
        self.skip();
        let value = match self.text.get(self.at) {
            Some(b'-') => {
                self.at += 1;
                self.unary()?.wrapping_neg()
            }
            Some(b'+') => {
                self.at += 1;
                self.unary()?
            }
            Some(b'!') => {
                self.at += 1;
                i64::from(self.unary()? == 0)
            }
            Some(b'(') => {
                self.at += 1;
                let value = self.level(0)?;
                self.skip();
                if self.text.get(self.at) != Some(&b')') {
                    return Err("missing `)'".to_owned());
                }
                self.at += 1;
                value
            }
            _ => {
                let start = self.at;
                while self
                    .text
                    .get(self.at)
                    .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
                {
                    self.at += 1;
                }
                let token = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
                if is_name(&token) {
                    self.shell.number(&token)?
                } else {
                    token.parse().map_err(|_| "syntax error: operand expected".to_owned())?
                }
            }
        };
        self.depth -= 1;
        Ok(value)
    }
}

fn binary(operator: &str, a: i64, b: i64) -> Result<i64, String> {
    let shift = u32::try_from(b & 63).unwrap_or(0);
    Ok(match operator {
        "||" => i64::from(a != 0 || b != 0),
        "&&" => i64::from(a != 0 && b != 0),
        "|" => a | b,
        "^" => a ^ b,
        "&" => a & b,
        "==" => i64::from(a == b),
        "!=" => i64::from(a != b),
        "<=" => i64::from(a <= b),
        ">=" => i64::from(a >= b),
        "<" => i64::from(a < b),
        ">" => i64::from(a > b),
        "<<" => a.wrapping_shl(shift),
        ">>" => a.wrapping_shr(shift),
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        "/" | "%" if b == 0 => return Err("division by 0".to_owned()),
        "/" => a.wrapping_div(b),
        _ => a.wrapping_rem(b),
    })
}
