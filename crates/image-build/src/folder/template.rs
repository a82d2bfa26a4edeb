//! `http/ks.cfg.j2`: the folder's values filled into a kickstart, each as data.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};

use crate::diagnostic::{Diagnostic, Location};
use crate::kickstart::{KickstartError, guard, quote_word};
use crate::variables::Values;

/// Whether a line of the filled-in text has the number of the template's line that it came from: no line was added or taken
/// away, so that a message can name the template's own.
pub(super) fn lines_stand(template: &str, text: &str) -> bool {
    let filled = |line: &str| ["{{", "{%", "{#"].iter().any(|open| line.contains(open));
    template.lines().count() == text.lines().count()
        && template
            .lines()
            .zip(text.lines())
            .all(|(from, to)| from == to || filled(from))
}

/// Fills the variables into a template; one that is not known is an error, since an empty text could mean anything, and so is
/// a value that would not be read as one where it stands.
pub(super) fn render(template: &str, file: &Path, values: &Values) -> Result<String, Box<Diagnostic>> {
    let refused = |line: usize, reason: String, help: &str| {
        let location = Location::of_line(file, template, line);
        Box::new(Diagnostic::error("kickstart", reason).at(location).help(help))
    };
    if guard::is_marked(template) {
        return Err(refused(
            1,
            "it holds a character that Unicode gives to nobody".to_owned(),
            "remove it",
        ));
    }
    let variables: BTreeMap<&str, &hcl::Value> = values
        .settings
        .iter()
        .map(|(name, setting)| (name.as_str(), &setting.value))
        .collect();
    let all = || {
        variables
            .iter()
            .map(|(name, value)| (*name, *value))
            .chain(locals(values))
    };
    for (name, value) in all() {
        if texts(value).any(guard::is_marked) {
            let reason = format!("`{name}` holds a character that Unicode gives to nobody");
            return Err(refused(line_of(template, name), reason, "remove it"));
        }
    }
    let mut context: BTreeMap<&str, Value> = variables
        .iter()
        .map(|(name, value)| (*name, Value::from(Serde(value))))
        .collect();
    context.insert("var", Value::from(Serde(&variables)));
    context.insert("local", Value::from(Serde(&values.locals)));
    let marked = environment().render_str(template, context).map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::UndefinedError => "a variable that is not known stands on this line".to_owned(),
            // Details can hold values, which can be secrets; the kind of the error cannot.
            kind => std::error::Error::source(&error)
                .and_then(|source| source.downcast_ref::<KickstartError>())
                .map_or_else(
                    || kind.to_string(),
                    |error| format!("a value on this line is none: {}", error.reason()),
                ),
        };
        refused(
            error.line().unwrap_or(1),
            reason,
            "the variables of the folder can be used by their names: {{ k3s_version }}, {{ local.name }}",
        )
    })?;
    if let Some(bad) = guard::misplaced(&marked) {
        // The longest that is part of it: `{{ a ~ "/x" }}` is about `a`.
        let name = all()
            .filter(|(_, value)| texts(value).any(|text| !text.is_empty() && bad.value.contains(text)))
            .max_by_key(|(_, value)| texts(value).map(str::len).max())
            .map(|(name, _)| name);
        let (what, line) = match name {
            Some(name) => (format!("`{name}`"), line_of(template, name)),
            None => ("a value".to_owned(), bad.line),
        };
        let help = bad.help.replace("NAME", name.unwrap_or("NAME"));
        return Err(refused(
            line,
            format!("{what} would not arrive as it is: {}", bad.reason),
            &help,
        ));
    }
    Ok(guard::unmarked(&marked))
}

fn environment() -> minijinja::Environment<'static> {
    let mut environment = minijinja::Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    if let Ok(syntax) = minijinja::syntax::SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .build()
    {
        environment.set_syntax(syntax);
    }
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("word", word);
    environment.set_formatter(mark);
    environment
}

/// The filter `word`: a value as one word of a kickstart command, quoted where it must be.
fn word(value: &Value) -> Result<Value, Error> {
    let text = match value.as_str() {
        Some(text) => guard::unmarked(text),
        None if value.is_number() || matches!(value.kind(), minijinja::value::ValueKind::Bool) => value.to_string(),
        None => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "a word is made of a text or a number",
            ));
        }
    };
    if text.is_empty() {
        return Ok(Value::from_safe_string("\"\"".to_owned()));
    }
    quote_word("value", &text)
        .map(Value::from_safe_string)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, "no word").with_source(error))
}

/// Writes a value between marks, so that it can be told from the template's own text.
fn mark(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let written = |_| Error::new(ErrorKind::WriteFailure, "writing to memory failed");
    let begin = if value.is_safe() { guard::QUOTED } else { guard::PLAIN };
    std::fmt::Write::write_char(out, begin).map_err(written)?;
    escape_formatter(out, state, value)?;
    std::fmt::Write::write_char(out, guard::END).map_err(written)
}

/// The locals by their names.
fn locals(values: &Values) -> impl Iterator<Item = (&str, &hcl::Value)> {
    values.locals.iter().map(|(name, value)| (name.as_str(), value))
}

/// The texts in a value.
pub(super) fn texts(value: &hcl::Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        hcl::Value::String(text) => Box::new(std::iter::once(text.as_str())),
        hcl::Value::Array(items) => Box::new(items.iter().flat_map(texts)),
        hcl::Value::Object(fields) => Box::new(fields.values().flat_map(texts)),
        _ => Box::new(std::iter::empty()),
    }
}

/// The first line of the template that fills in a variable.
fn line_of(template: &str, name: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let names = |line: &str| line.split(|c| !is_part(c)).any(|word| word == name);
    (1..)
        .zip(template.lines())
        .find(|(_, line)| line.contains("{{") && names(line))
        .map_or(1, |(number, _)| number)
}
