//! Merges all values in Packer's order: defaults, `PKR_VAR_*`, `*.auto.pkrvars.*`, then `-var` and `-var-file` as given.

use std::collections::BTreeMap;
use std::path::Path;

use hcl::{Map, Value};

use super::evaluate::Scope;
use super::folder_files::{FolderFiles, KICKSTART_TEMPLATE, read_text};
use super::hcl_file::{self, Assignment, Declaration, Declarations, Source};
use super::inputs::{Input, Inputs};
use super::json_file;
use super::kind::Kind;
use super::table;
use crate::diagnostic::{Diagnostic, Diagnostics, Location, nearest};
use crate::error::Error;

/// How variables are named in the environment.
pub(super) const PREFIX: &str = "PKR_VAR_";

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This library's own default.
    BuiltIn,
    /// The default of its declaration.
    Declared(Location),
    /// `PKR_VAR_name`.
    Environment,
    /// A variable file.
    File(Location),
    /// `-var`.
    CommandLine,
}

impl Origin {
    /// Is it a default, which gives way to what the user says elsewhere?
    pub(crate) fn is_default(&self) -> bool {
        matches!(self, Self::BuiltIn | Self::Declared(_))
    }
}

/// A variable's value and where it was set.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    pub(crate) sensitive: bool,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            value,
            origin,
            sensitive,
        } = self;
        let mut debug = f.debug_struct("Setting");
        if !sensitive {
            debug.field("value", value);
        }
        debug.field("origin", origin).finish_non_exhaustive()
    }
}

/// Every variable that has a value, and the locals.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) settings: BTreeMap<String, Setting>,
    pub(crate) locals: Map<String, Value>,
}

/// Reads and merges everything that a template folder and the inputs say.
///
/// # Errors
/// When the folder or a file cannot be read. What is wrong in the files goes into `found`.
pub(crate) fn merge(dir: &Path, inputs: &Inputs, found: &mut Diagnostics) -> Result<Values, Error> {
    merge_files(&FolderFiles::of(dir)?, inputs, found)
}

/// The same without a folder: the library's own defaults, the environment and the command line.
///
/// # Errors
/// When a file of the command line cannot be read.
pub(crate) fn merge_without_folder(inputs: &Inputs, found: &mut Diagnostics) -> Result<Values, Error> {
    merge_files(&FolderFiles::default(), inputs, found)
}

fn merge_files(files: &FolderFiles, inputs: &Inputs, found: &mut Diagnostics) -> Result<Values, Error> {
    let empty = Scope::new(&inputs.environment);
    let mut declared = Declarations::default();
    for path in &files.declarations {
        let text = read_text(path)?;
        let Declarations { variables, locals } = hcl_file::declarations(
            Source {
                file: path,
                text: &text,
            },
            &empty,
            found,
        );
        declared.variables.extend(variables);
        declared.locals.extend(locals);
    }
    for path in &files.json_declarations {
        found.push(Diagnostic::warning(
            "",
            format!(
                "{} is not read: declarations are read from *.pkr.hcl only",
                path.display()
            ),
        ));
    }
    let mut merger = Merger {
        declared,
        template: &files.template,
        values: Values::default(),
        known: Vec::new(),
        found,
    };
    merger.defaults();
    merger.environment(inputs);
    for path in &files.automatic {
        merger.file(path, &empty)?;
    }
    for input in &inputs.given {
        match input {
            Input::Var { name, value } => merger.command_line(name, value, &empty),
            Input::File(path) => merger.file(path, &empty)?,
        }
    }
    let Merger {
        declared,
        mut values,
        found,
        ..
    } = merger;
    let mut scope = Scope::new(&inputs.environment);
    scope.variables = values
        .settings
        .iter()
        .map(|(name, setting)| (name.clone(), setting.value.clone()))
        .collect();
    validate(&declared.variables, &values, &scope, found);
    locals(&declared, &mut scope, found);
    values.locals = scope.locals;
    Ok(values)
}

struct Merger<'a> {
    declared: Declarations,
    template: &'a str,
    values: Values,
    known: Vec<String>,
    found: &'a mut Diagnostics,
}

impl Merger<'_> {
    /// The library's defaults, then those of the declarations.
    fn defaults(&mut self) {
        for info in table::VARIABLES {
            self.known.push(info.name.to_owned());
            if let Some(value) = info.default_value() {
                self.put(info.name, value, Origin::BuiltIn);
            }
        }
        let mut seen: Vec<(String, Location)> = Vec::new();
        for declaration in std::mem::take(&mut self.declared.variables) {
            if let Some((_, first)) = seen.iter().find(|(name, _)| *name == declaration.name) {
                self.found.push(
                    Diagnostic::error(&declaration.name, "it is declared twice")
                        .at(declaration.location)
                        .help(format!("the first is at {}:{}", first.file.display(), first.line)),
                );
                continue;
            }
            seen.push((declaration.name.clone(), declaration.location.clone()));
            if table::find(&declaration.name).is_none() {
                self.known.push(declaration.name.clone());
                // A variable of the user's own can be meant for a local or a kickstart template; one that is almost ours
                // is a slip, unless the template does use it.
                if !mentions(self.template, &declaration.name)
                    && let Some(near) = nearest(&declaration.name, table::names()).first()
                {
                    self.found.push(
                        Diagnostic::warning(
                            &declaration.name,
                            format!("only locals and {KICKSTART_TEMPLATE} can use this variable"),
                        )
                        .at(declaration.location.clone())
                        .help(format!("did you mean {near}?")),
                    );
                }
            }
            let Declaration { name, default, .. } = &declaration;
            if let Some((value, location)) = default.clone() {
                let name = name.clone();
                self.declared.variables.push(declaration);
                self.put(&name, value, Origin::Declared(location));
            } else {
                self.declared.variables.push(declaration);
            }
        }
    }

    fn environment(&mut self, inputs: &Inputs) {
        for (variable, text) in &inputs.environment {
            let Some(name) = variable.strip_prefix(PREFIX) else {
                continue;
            };
            if self.known.iter().any(|known| known == name) {
                self.text(
                    name,
                    text,
                    Origin::Environment,
                    &format!("{variable} in the environment"),
                    inputs,
                );
            } else if let Some(near) = nearest(name, self.known.iter().map(String::as_str)).first() {
                // Other templates' variables may be in the environment, so only a near miss is worth a word.
                let warning = Diagnostic::warning(
                    name,
                    format!("{variable} in the environment sets no variable of this folder"),
                );
                self.found.push(warning.help(format!("did you mean {PREFIX}{near}?")));
            }
        }
    }

    fn command_line(&mut self, name: &str, text: &str, scope: &Scope<'_>) {
        if self.known.iter().any(|known| known == name) {
            let inputs = Inputs {
                environment: scope.environment.clone(),
                given: Vec::new(),
            };
            self.text(name, text, Origin::CommandLine, "-var", &inputs);
            return;
        }
        let near = nearest(name, self.known.iter().map(String::as_str));
        let help = if near.is_empty() {
            "declare it in a *.pkr.hcl file, if it is a variable of your own".to_owned()
        } else {
            format!("did you mean {}?", near.join(", or "))
        };
        self.found
            .push(Diagnostic::error(name, "-var sets a variable that is not known").help(help));
    }

    /// A value that came as text: literal for texts, an HCL expression for everything else.
    fn text(&mut self, name: &str, text: &str, origin: Origin, what: &str, inputs: &Inputs) {
        let kind = self.kind(name);
        let value = if kind.is_literal() {
            Some(Value::String(text.to_owned()))
        } else {
            let evaluated = text
                .trim()
                .parse()
                .ok()
                .and_then(|expression| Scope::new(&inputs.environment).evaluate(&expression).ok());
            evaluated.or_else(|| Some(Value::String(text.to_owned())))
        };
        if let Some(value) = value.and_then(|value| kind.convert(value)) {
            self.put(name, value, origin);
        } else {
            let shown = if self.sensitive(name) {
                "its value".to_owned()
            } else {
                format!("`{text}`")
            };
            self.found.push(
                Diagnostic::error(name, format!("{shown}, set by {what}, is not of its type"))
                    .help(format!("write {}", kind.example())),
            );
        }
    }

    fn file(&mut self, path: &Path, scope: &Scope<'_>) -> Result<(), Error> {
        let text = read_text(path)?;
        let source = Source {
            file: path,
            text: &text,
        };
        let assignments = if path.extension().is_some_and(|extension| extension == "json") {
            json_file::assignments(source, self.found)
        } else {
            hcl_file::assignments(source, scope, self.found)
        };
        for Assignment {
            name,
            value,
            name_location,
            location,
        } in assignments
        {
            let sensitive = self.sensitive(&name);
            let location = if sensitive { location.without_text() } else { location };
            if !self.known.contains(&name) {
                let near = nearest(&name, self.known.iter().map(String::as_str));
                let help = match near.first() {
                    Some(near) => format!("did you mean {near}?"),
                    None => "declare it in a *.pkr.hcl file, if it is a variable of your own".to_owned(),
                };
                self.found.push(
                    Diagnostic::warning(&name, "nothing reads this variable")
                        .at(name_location)
                        .help(help),
                );
                continue;
            }
            if sensitive && value.as_str() != Some("") && !value.is_null() {
                self.found.push(
                    Diagnostic::warning(&name, "a secret stands in a file, which is easily committed or copied")
                        .at(location.clone())
                        .help(format!("export {PREFIX}{name} instead")),
                );
            }
            let kind = self.kind(&name);
            match kind.convert(value) {
                Some(value) => self.put(&name, value, Origin::File(location)),
                None => self.found.push(
                    Diagnostic::error(&name, "this is not of its type")
                        .at(location)
                        .help(format!("write {}", kind.example())),
                ),
            }
        }
        Ok(())
    }

    /// `null` means: as if it were not set.
    fn put(&mut self, name: &str, value: Value, origin: Origin) {
        if value.is_null() {
            return;
        }
        let sensitive = self.sensitive(name);
        self.values.settings.insert(
            name.to_owned(),
            Setting {
                value,
                origin,
                sensitive,
            },
        );
    }

    fn declaration(&self, name: &str) -> Option<&Declaration> {
        self.declared
            .variables
            .iter()
            .find(|declaration| declaration.name == name)
    }

    /// The declared type; the library's own where nothing or `any` is declared.
    fn kind(&self, name: &str) -> Kind {
        let own = || table::find(name).map_or(Kind::Any, |info| info.kind.to_kind());
        match self.declaration(name) {
            Some(declaration) if declaration.kind != Kind::Any => declaration.kind.clone(),
            _ => own(),
        }
    }

    /// A folder may make more sensitive, never less.
    fn sensitive(&self, name: &str) -> bool {
        table::find(name).is_some_and(|info| info.sensitive)
            || self.declaration(name).is_some_and(|declaration| declaration.sensitive)
    }
}

fn validate(declared: &[Declaration], values: &Values, scope: &Scope<'_>, found: &mut Diagnostics) {
    for declaration in declared {
        if !values.settings.contains_key(&declaration.name) {
            if table::find(&declaration.name).is_none() {
                found.push(
                    Diagnostic::error(&declaration.name, "it is not set and has no default")
                        .at(declaration.location.clone())
                        .help(format!(
                            "write it into a *.auto.pkrvars.hcl file, or export {PREFIX}{}",
                            declaration.name
                        )),
                );
            }
            continue;
        }
        for validation in &declaration.validations {
            let location = validation.location.clone();
            match scope.evaluate(&validation.condition) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => {
                    found.push(Diagnostic::error(&declaration.name, validation.message.as_str()).at(location));
                }
                Ok(_) => found
                    .push(Diagnostic::error(&declaration.name, "its condition is neither true nor false").at(location)),
                Err(reason) => found.push(
                    Diagnostic::error(&declaration.name, format!("its condition cannot be checked: {reason}"))
                        .at(location),
                ),
            }
        }
    }
}

/// Locals may use each other in any order, so they are tried until none can be had any more.
fn locals(declared: &Declarations, scope: &mut Scope<'_>, found: &mut Diagnostics) {
    let mut open: Vec<&hcl_file::Local> = Vec::new();
    for local in &declared.locals {
        if open.iter().any(|earlier| earlier.name == local.name) {
            found.push(
                Diagnostic::error(format!("local.{}", local.name), "it is defined twice").at(local.location.clone()),
            );
        } else {
            open.push(local);
        }
    }
    loop {
        let before = open.len();
        let mut failed = Vec::new();
        open.retain(|local| match scope.evaluate(&local.expression) {
            Ok(value) => {
                scope.locals.insert(local.name.clone(), value);
                false
            }
            Err(reason) => {
                failed.push((local.name.clone(), reason, local.location.clone(), local.sensitive));
                true
            }
        });
        if open.len() == before {
            found.extend(failed.into_iter().map(|(name, reason, location, sensitive)| {
                let location = if sensitive { location.without_text() } else { location };
                // Nothing but a kickstart template can use a local, so one that cannot be had is no reason to stop.
                Diagnostic::warning(format!("local.{name}"), format!("it has no value: {reason}")).at(location)
            }));
            return;
        }
    }
}

/// Whether the text holds `name` as a word.
fn mentions(text: &str, name: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == name)
}
