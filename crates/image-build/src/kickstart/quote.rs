//! Quoting: any text either arrives as data or is refused by name; none of it becomes a command.

use thiserror::Error;

/// Why a value cannot stand in a kickstart.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{field}` cannot stand in a kickstart: {reason}")]
pub struct KickstartError {
    pub(super) field: String,
    pub(super) reason: String,
}

impl KickstartError {
    pub(super) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// The field of the model.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Why it cannot stand there.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }
}

/// A value as one word of a kickstart command.
///
/// # Source
/// pykickstart reads lines with `shlex.split(.., comments=True)`, POSIX mode: in double quotes only `\` and `"` are
/// special. A line break ends the command whatever stands around it, so control characters are refused.
pub(crate) fn word(field: &str, value: &str) -> Result<String, KickstartError> {
    if value.is_empty() {
        return Err(KickstartError::new(field, "it is empty"));
    }
    if let Some(c) = value
        .chars()
        .find(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}'))
    {
        return Err(KickstartError::new(
            field,
            format!("it holds the control character {c:?}"),
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if value.chars().all(plain) {
        return Ok(value.to_owned());
    }
    Ok(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// A value of which only certain characters make sense, such as a package or a host name.
pub(super) fn name<'a>(field: &str, value: &'a str, also: &str) -> Result<&'a str, KickstartError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
    match value.chars().find(|c| !fits(*c)) {
        _ if value.is_empty() => Err(KickstartError::new(field, "it is empty")),
        // A leading dash would be read as an option or, among packages, as an exclusion.
        _ if value.starts_with('-') => Err(KickstartError::new(field, "it begins with a dash")),
        Some(c) => Err(KickstartError::new(field, format!("{c:?} has no place in it"))),
        None => Ok(value),
    }
}

/// A line within a section: anything but what would end the section or include a file.
pub(super) fn section_body(field: &str, body: &str) -> Result<String, KickstartError> {
    if let Some(c) = body.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        return Err(KickstartError::new(
            field,
            format!("it holds the control character {c:?}"),
        ));
    }
    // pykickstart ends a section at a line whose first word is %end, and follows %include anywhere.
    for line in body.split('\n') {
        let first = line.split_whitespace().next().unwrap_or_default();
        if first.starts_with("%end") || first.starts_with("%include") || first.starts_with("%ksappend") {
            return Err(KickstartError::new(
                field,
                format!("its line `{}` would end the section", line.trim()),
            ));
        }
    }
    let mut text = body.to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
