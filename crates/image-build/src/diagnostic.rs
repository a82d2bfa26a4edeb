//! Diagnostics: what is wrong with the input, where it stands, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Nothing is built until it is put right.
    Error,
    /// Worth a look; the build goes on.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a text file: line, columns and the line's own text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// How many characters the caret underlines, at least 1.
    pub width: usize,
    /// The line's text; empty when it holds a secret.
    pub text: String,
}

impl Location {
    /// The place of a byte range in `source`; a range over several lines is cut at the end of its first.
    pub fn of_range(file: &Path, source: &str, range: Range<usize>) -> Self {
        let start = floor_boundary(source, range.start);
        let end = floor_boundary(source, range.end).max(start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        Self {
            file: file.to_owned(),
            line: source[..start].matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            width: source[start..end.min(line_end)].chars().count().max(1),
            text: source[line_start..line_end].trim_end_matches('\r').to_owned(),
        }
    }

    /// The place of a whole line, counted from 1; the caret points at its first word.
    pub fn of_line(file: &Path, source: &str, line: usize) -> Self {
        let text = source.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let indent = text.chars().take_while(|c| c.is_whitespace()).count();
        let width = text.trim().chars().count().max(1);
        Self {
            file: file.to_owned(),
            line,
            column: indent + 1,
            width,
            text: text.to_owned(),
        }
    }

    /// The same place without the line's text, for lines that hold a secret.
    #[must_use]
    pub fn without_text(mut self) -> Self {
        self.text.clear();
        self
    }
}

fn floor_boundary(source: &str, mut at: usize) -> usize {
    at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// One thing that is wrong with the input.
///
/// `Display` renders all of it over several lines, in the form that compilers use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it weighs.
    pub severity: Severity,
    /// The variable or field that it is about; empty for a fault of a file as such.
    pub subject: String,
    /// What is wrong, with the value unless that is sensitive. One lower-case line.
    pub message: String,
    /// Where it stands.
    pub location: Option<Location>,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error about a variable or field.
    pub fn error(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            subject: subject.into(),
            message: message.into(),
            location: None,
            help: None,
        }
    }

    /// A warning about a variable or field.
    pub fn warning(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(subject, message)
        }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds where it stands.
    #[must_use]
    pub fn at(mut self, location: impl Into<Option<Location>>) -> Self {
        self.location = location.into();
        self
    }

    /// Subject and message on one line.
    pub fn headline(&self) -> String {
        if self.subject.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.subject, self.message)
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.headline())?;
        let margin = match &self.location {
            Some(location) => write_location(f, location)?,
            None => 0,
        };
        if let Some(help) = &self.help {
            for (index, line) in help.lines().enumerate() {
                let lead = if index == 0 { "= help: " } else { "        " };
                write!(f, "\n{:margin$} {lead}{line}", "")?;
            }
        }
        Ok(())
    }
}

/// Writes arrow, line and caret; gives the width of the line number.
fn write_location(f: &mut fmt::Formatter<'_>, location: &Location) -> Result<usize, fmt::Error> {
    let Location {
        file,
        line,
        column,
        width,
        text,
    } = location;
    let number = line.to_string();
    let margin = number.len();
    write!(f, "\n{:margin$}--> {}:{line}:{column}", "", file.display())?;
    if !text.is_empty() {
        // Tabs are kept in the caret line, so that it lines up whatever the terminal makes of them.
        let indent: String = text
            .chars()
            .take(column.saturating_sub(1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        // Control characters of a file must not reach the terminal.
        let shown: String = text
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        write!(
            f,
            "\n{:margin$} |\n{number} | {shown}\n{:margin$} | {indent}{}",
            "",
            "",
            "^".repeat(*width)
        )?;
    }
    Ok(margin)
}

/// All that is wrong with the input, in the order found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// An empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Adds all of another list.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Each in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is at least one an error?
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Parts errors from warnings.
    pub fn split(self) -> (Self, Self) {
        let (errors, warnings) = self
            .0
            .into_iter()
            .partition(|diagnostic| diagnostic.severity == Severity::Error);
        (Self(errors), Self(warnings))
    }

    /// The first error and how many more there are, on one line.
    pub(crate) fn summary(&self) -> String {
        let errors: Vec<&Diagnostic> = self.iter().filter(|d| d.severity == Severity::Error).collect();
        match errors.as_slice() {
            [] => "no errors".to_owned(),
            [one] => one.headline(),
            [first, rest @ ..] => format!("{} (and {} more)", first.headline(), rest.len()),
        }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, iter: I) {
        self.0.extend(iter);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

/// The names of `known` that a person may have meant by `given`, nearest first, at most three.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let given = given.to_lowercase();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&given, &name.to_lowercase()), name))
        .filter(|(score, _)| *score > 0.8)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.truncate(3);
    scored.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_diagnostic_shows_place_caret_and_help() {
        let source = "# versions\n\tk3s_version = \"v1.29.0\"\n";
        let start = source.find('"').unwrap();
        let diagnostic = Diagnostic::error("k3s_version", "`v1.29.0` names no k3s release")
            .at(Location::of_range(Path::new("a.pkrvars.hcl"), source, start..start + 9))
            .help("write v1.29.0+k3s1\n(see the releases of k3s)");
        insta::assert_snapshot!(diagnostic, @r#"
        error: k3s_version: `v1.29.0` names no k3s release
         --> a.pkrvars.hcl:2:16
          |
        2 | 	k3s_version = "v1.29.0"
          | 	              ^^^^^^^^^
          = help: write v1.29.0+k3s1
                  (see the releases of k3s)
        "#);
    }

    #[test]
    fn secrets_and_control_characters_stay_out() {
        let source = "proxmox_token = \"\u{1b}[31mred\"";
        let location = Location::of_range(Path::new("f"), source, 16..28);
        assert!(
            !Diagnostic::error("x", "y")
                .at(location.clone())
                .to_string()
                .contains('\u{1b}')
        );
        let hidden = Diagnostic::error("x", "y").at(location.without_text()).to_string();
        assert_eq!(hidden, "error: x: y\n --> f:1:17");
    }

    #[test]
    fn several_are_parted_and_summed_up() {
        let mut all = Diagnostics::from(Diagnostic::warning("a", "odd"));
        assert!(!all.has_errors());
        all.push(Diagnostic::error("b", "wrong"));
        all.push(Diagnostic::error("", "unreadable"));
        assert_eq!(all.summary(), "b: wrong (and 1 more)");
        assert_eq!(
            all.to_string(),
            "warning: a: odd\n\nerror: b: wrong\n\nerror: unreadable"
        );
        let (errors, warnings) = all.split();
        assert_eq!((errors.len(), warnings.len()), (2, 1));
    }

    #[test]
    fn near_names() {
        let known = ["proxmox_url", "proxmox_username", "vm_memory", "k3s_version"];
        assert_eq!(nearest("k3s_verison", known), ["k3s_version"]);
        assert_eq!(nearest("proxmox_user", known)[0], "proxmox_username");
        assert!(nearest("zzz", known).is_empty());
    }

    proptest! {
        #[test]
        fn any_range_of_any_text_has_a_place(source in "\\PC{0,40}(\r?\n\\PC{0,9}){0,4}", a in 0_usize..90, b in 0_usize..90) {
            let location = Location::of_range(Path::new("f"), &source, a..b);
            prop_assert!(location.line >= 1 && location.column >= 1 && location.width >= 1);
            prop_assert!(location.column <= location.text.chars().count() + 2);
        }
    }
}
