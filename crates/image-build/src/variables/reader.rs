//! `Reader`: typed access to merged values; what does not fit becomes a diagnostic with its place.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use hcl::Value;
use secrecy::SecretString;
use url::Url;

use super::merge::{Origin, PREFIX, Setting, Values};
use super::table;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::duration;
use crate::spec::holds_password;

/// Reads values by name and collects what is wrong with them.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    values: &'a Values,
    pub(crate) found: Diagnostics,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(values: &'a Values) -> Self {
        Self {
            values,
            found: Diagnostics::new(),
        }
    }

    pub(crate) fn setting(&self, name: &str) -> Option<&'a Setting> {
        debug_assert!(table::find(name).is_some(), "{name} is not in the table");
        self.values.settings.get(name)
    }

    /// A text that is not empty; empty means not set, in every variable.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.setting(name)?
            .value
            .as_str()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }

    pub(crate) fn secret(&self, name: &str) -> Option<SecretString> {
        // Line ends come along when a secret is read from a file; other blanks can be part of a password.
        let text = self.setting(name)?.value.as_str()?.trim_end_matches(['\r', '\n']);
        (!text.is_empty()).then(|| SecretString::from(text.to_owned()))
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.setting(name)
            .is_some_and(|setting| setting.value == Value::Bool(true))
    }

    /// A whole number that fits.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Option<T> {
        let value = &self.setting(name)?.value;
        let number = value.as_u64().or_else(|| {
            // 4096.0 is the same number; as HCL has one kind of numbers only, it can come that way.
            let float = value.as_f64()?;
            format!("{float}").parse().ok()
        });
        let fits = number.and_then(|number| T::try_from(number).ok());
        if fits.is_none() {
            self.error(
                name,
                format!("{} does not fit", shown(value)),
                Some("write a whole number that is not negative".to_owned()),
            );
        }
        fits
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let items = self.setting(name).and_then(|setting| setting.value.as_array());
        items
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// A text that is read as something; nothing when it is not set.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        match self.text(name)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(name, format!("{error}"), None);
                None
            }
        }
    }

    pub(crate) fn duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        match duration::parse(text) {
            Ok(duration) => Some(duration),
            Err(reason) => {
                self.error(name, format!("`{text}` is no duration: {reason}"), None);
                None
            }
        }
    }

    /// A disk size in GiB: `32G`, `1T`, or a plain number of GiB.
    pub(crate) fn size_gib(&mut self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        let (digits, factor) = match text.trim_end_matches(['i', 'B', 'b']) {
            text if text.ends_with(['T', 't']) => (&text[..text.len() - 1], 1024),
            text if text.ends_with(['G', 'g']) => (&text[..text.len() - 1], 1),
            text => (text, 1),
        };
        let size = digits
            .trim()
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        if size.is_none() {
            let help = "write whole GiB or TiB, as in 32G or 1T: Proxmox VE allocates in GiB";
            self.error(name, format!("`{text}` is no disk size"), Some(help.to_owned()));
        }
        size
    }

    /// Notes that a variable which has no default is not set.
    pub(crate) fn missing(&mut self, name: &str) {
        let example = table::find(name).map_or("", |info| info.doc);
        self.found.push(Diagnostic::error(name, "it is not set").help(format!(
            "write it into variables.auto.pkrvars.hcl, or export {PREFIX}{name}: {example}"
        )));
    }

    pub(crate) fn error(&mut self, name: &str, message: impl Into<String>, help: Option<String>) {
        let mut diagnostic = Diagnostic::error(name, message);
        diagnostic.help = help;
        self.found.push(self.place(diagnostic));
    }

    pub(crate) fn warn(&mut self, name: &str, message: impl Into<String>, help: Option<String>) {
        let mut diagnostic = Diagnostic::warning(name, message);
        diagnostic.help = help;
        self.found.push(self.place(diagnostic));
    }

    /// Adds where the variable that it is about was set.
    pub(crate) fn place(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        if diagnostic.location.is_some() {
            return diagnostic;
        }
        let Some(setting) = self.values.settings.get(&diagnostic.subject) else {
            return diagnostic;
        };
        match &setting.origin {
            Origin::BuiltIn => {}
            Origin::Declared(location) | Origin::File(location) => {
                let place = location.clone();
                // A password in an address is not marked as sensitive by anybody.
                let secret = setting
                    .value
                    .as_str()
                    .is_some_and(|text| Url::parse(text.trim()).is_ok_and(|url| holds_password(&url)));
                diagnostic.location = Some(if secret { place.without_text() } else { place });
            }
            Origin::Environment => {
                diagnostic.message = format!("{} (set by {PREFIX}{})", diagnostic.message, diagnostic.subject);
            }
            Origin::CommandLine => diagnostic.message.push_str(" (set by -var)"),
        }
        diagnostic
    }

    /// Takes over diagnostics of other layers whose subject is a variable.
    pub(crate) fn take(&mut self, diagnostics: Diagnostics) {
        let is_error = |diagnostic: &&Diagnostic| diagnostic.severity == Severity::Error;
        let known: BTreeSet<String> = self
            .found
            .iter()
            .filter(is_error)
            .map(|earlier| earlier.subject.clone())
            .collect();
        // The first word about a variable is the most precise; a check of the whole would only repeat it.
        let fresh = diagnostics
            .into_iter()
            .filter(|diagnostic| !known.contains(&diagnostic.subject));
        self.take_all(fresh.collect());
    }
}

impl Reader<'_> {
    /// Takes over diagnostics that have their own places.
    pub(crate) fn take_all(&mut self, diagnostics: Diagnostics) {
        let placed: Vec<Diagnostic> = diagnostics
            .into_iter()
            .map(|diagnostic| self.place(diagnostic))
            .collect();
        self.found.extend(placed);
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        _ => "the value".to_owned(),
    }
}
