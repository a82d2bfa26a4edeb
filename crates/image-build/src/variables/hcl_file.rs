//! Reads `*.pkr.hcl` (declarations and locals) and `*.pkrvars.hcl` (values), with the place of each.

use std::path::Path;

use hcl::Value;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Attribute, Block, Body, Structure};

use super::evaluate::Scope;
use super::kind::Kind;
use crate::diagnostic::{Diagnostic, Diagnostics, Location};

/// Larger files are no variable files; they would only cost memory.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;

/// A `variable` block.
#[derive(Debug)]
pub(super) struct Declaration {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) default: Option<(Value, Location)>,
    pub(super) sensitive: bool,
    pub(super) validations: Vec<Validation>,
    pub(super) location: Location,
}

/// A `validation` block.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) condition: Expression,
    pub(super) message: String,
    pub(super) location: Location,
}

/// A value of `locals`.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) name: String,
    pub(super) expression: Expression,
    pub(super) sensitive: bool,
    pub(super) location: Location,
}

/// What a `*.pkr.hcl` file holds that is read.
#[derive(Debug, Default)]
pub(super) struct Declarations {
    pub(super) variables: Vec<Declaration>,
    pub(super) locals: Vec<Local>,
}

/// A value of a variable file.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) name: String,
    pub(super) value: Value,
    /// Place of the name. Its text ends there, as what follows may be a secret under a misspelt name.
    pub(super) name_location: Location,
    /// Place of the value.
    pub(super) location: Location,
}

/// A file's name and text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    fn at(&self, node: &impl hcl_edit::Span) -> Location {
        Location::of_range(self.file, self.text, node.span().unwrap_or(0..0))
    }

    fn parse(&self, found: &mut Diagnostics) -> Option<Body> {
        match hcl_edit::parser::parse_body(self.text) {
            Ok(body) => Some(body),
            Err(error) => {
                let at = error.location().offset();
                let location = Location::of_range(self.file, self.text, at..at + 1);
                // A line that does not parse may well be the one with the token.
                let location = if looks_secret(&location.text) {
                    location.without_text()
                } else {
                    location
                };
                let diagnostic = if error.message().contains("redefined attribute") {
                    Diagnostic::error("", "this is set twice in one file")
                } else {
                    Diagnostic::error("", format!("this is no HCL: {}", error.message()))
                };
                found.push(diagnostic.at(location));
                None
            }
        }
    }
}

pub(super) fn looks_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    ["token", "password", "secret"].iter().any(|word| line.contains(word))
}

/// Reads declarations and locals; blocks that build are named in a warning, since this tool does not read them.
pub(super) fn declarations(source: Source<'_>, scope: &Scope<'_>, found: &mut Diagnostics) -> Declarations {
    let mut result = Declarations::default();
    let Some(body) = source.parse(found) else { return result };
    for structure in &body {
        match structure {
            Structure::Attribute(attribute) => found.push(
                Diagnostic::error(attribute.key.as_str(), "a value has no place here")
                    .at(source.at(&attribute.key))
                    .help("values go into a *.auto.pkrvars.hcl file; here stand variable blocks"),
            ),
            Structure::Block(block) => match block.ident.as_str() {
                "variable" => result.variables.extend(declaration(source, block, scope, found)),
                "locals" => result
                    .locals
                    .extend(block.body.attributes().map(|attribute| local(source, attribute))),
                "local" => result.locals.extend(single_local(source, block, found)),
                "packer" | "source" | "build" | "data" | "hcp_packer_registry" => found.push(
                    Diagnostic::warning("", format!("this `{}` block is not read", block.ident.as_str()))
                        .at(source.at(&block.ident))
                        .help("k3simage builds its own steps from the variables, http/ and scripts/"),
                ),
                other => found.push(
                    Diagnostic::error("", format!("`{other}` is no block of a template folder"))
                        .at(source.at(&block.ident))
                        .help("there are variable, locals, local, packer, source and build"),
                ),
            },
        }
    }
    result
}

fn local(source: Source<'_>, attribute: &Attribute) -> Local {
    Local {
        name: attribute.key.as_str().to_owned(),
        expression: attribute.value.clone(),
        sensitive: false,
        location: source.at(&attribute.value),
    }
}

fn single_local(source: Source<'_>, block: &Block, found: &mut Diagnostics) -> Option<Local> {
    let name = label(block);
    let expression = block.body.get_attribute("expression");
    let sensitive =
        matches!(block.body.get_attribute("sensitive").map(|a| &a.value), Some(Expression::Bool(on)) if **on);
    if let (Some(name), Some(attribute)) = (name, expression) {
        Some(Local {
            name,
            sensitive,
            ..local(source, attribute)
        })
    } else {
        found.push(
            Diagnostic::error("", "a local block needs a name and an expression")
                .at(source.at(&block.ident))
                .help("write local \"name\" { expression = ... }"),
        );
        None
    }
}

fn label(block: &Block) -> Option<String> {
    match block.labels.as_slice() {
        [one] => Some(one.as_str().to_owned()),
        _ => None,
    }
}

fn declaration(source: Source<'_>, block: &Block, scope: &Scope<'_>, found: &mut Diagnostics) -> Option<Declaration> {
    let Some(name) = label(block) else {
        found.push(
            Diagnostic::error("", "a variable block needs one name")
                .at(source.at(&block.ident))
                .help("write variable \"vm_memory\" { ... }"),
        );
        return None;
    };
    let location = block
        .labels
        .first()
        .map_or_else(|| source.at(&block.ident), |label| source.at(label));
    let mut result = Declaration {
        name,
        kind: Kind::Any,
        default: None,
        sensitive: false,
        validations: Vec::new(),
        location,
    };
    let mut default = None;
    for structure in &block.body {
        match structure {
            Structure::Attribute(attribute) => match attribute.key.as_str() {
                "type" => match Kind::of(&attribute.value) {
                    Some(kind) => result.kind = kind,
                    None => found.push(
                        Diagnostic::error(&result.name, "this is no type")
                            .at(source.at(&attribute.value))
                            .help("write string, number, bool, list(string), map(string) or any"),
                    ),
                },
                "default" => default = Some(attribute),
                "sensitive" => match &attribute.value {
                    Expression::Bool(on) => result.sensitive = **on,
                    _ => found.push(
                        Diagnostic::error(&result.name, "sensitive is true or false").at(source.at(&attribute.value)),
                    ),
                },
                "description" | "deprecated" => {}
                other => found.push(
                    Diagnostic::error(&result.name, format!("`{other}` is no part of a variable"))
                        .at(source.at(&attribute.key))
                        .help("there are type, default, description, sensitive and validation"),
                ),
            },
            Structure::Block(inner) if inner.ident.as_str() == "validation" => {
                result
                    .validations
                    .extend(validation(source, &result.name, inner, found));
            }
            Structure::Block(inner) => found.push(
                Diagnostic::error(
                    &result.name,
                    format!("`{}` is no part of a variable", inner.ident.as_str()),
                )
                .at(source.at(&inner.ident)),
            ),
        }
    }
    if let Some(attribute) = default {
        let location = source.at(&attribute.value);
        let location = if result.sensitive {
            location.without_text()
        } else {
            location
        };
        match scope.evaluate(&attribute.value) {
            Err(reason) => found.push(Diagnostic::error(&result.name, format!("its default: {reason}")).at(location)),
            Ok(value) => match result.kind.convert(value) {
                Some(value) => result.default = Some((value, location)),
                None => found.push(
                    Diagnostic::error(&result.name, "its default is not of its type")
                        .at(location)
                        .help(format!("write {}", result.kind.example())),
                ),
            },
        }
    }
    Some(result)
}

fn validation(source: Source<'_>, name: &str, block: &Block, found: &mut Diagnostics) -> Option<Validation> {
    let condition = block.body.get_attribute("condition");
    let message = block
        .body
        .get_attribute("error_message")
        .and_then(|attribute| attribute.value.as_str());
    if let (Some(condition), Some(message)) = (condition, message) {
        Some(Validation {
            condition: condition.value.clone(),
            message: message.to_owned(),
            location: source.at(&condition.value),
        })
    } else {
        found.push(
            Diagnostic::error(
                name,
                "a validation needs a condition and an error_message in double quotes",
            )
            .at(source.at(&block.ident)),
        );
        None
    }
}

/// The place with its line cut behind the marked characters.
pub(super) fn cut_behind(mut location: Location) -> Location {
    location.text = location
        .text
        .chars()
        .take(location.column - 1 + location.width)
        .collect();
    location
}

/// Reads the values of a `*.pkrvars.hcl` file.
pub(super) fn assignments(source: Source<'_>, scope: &Scope<'_>, found: &mut Diagnostics) -> Vec<Assignment> {
    let mut result: Vec<Assignment> = Vec::new();
    let Some(body) = source.parse(found) else { return result };
    for structure in &body {
        let attribute = match structure {
            Structure::Attribute(attribute) => attribute,
            Structure::Block(block) => {
                found.push(
                    Diagnostic::error(
                        "",
                        format!("a `{}` block has no place in a variable file", block.ident.as_str()),
                    )
                    .at(source.at(&block.ident))
                    .help("here stand values, as in vm_memory = 4096; blocks go into a *.pkr.hcl file"),
                );
                continue;
            }
        };
        let name = attribute.key.as_str().to_owned();
        if result.iter().any(|earlier| earlier.name == name) {
            found.push(Diagnostic::error(&name, "it is set twice in this file").at(source.at(&attribute.key)));
            continue;
        }
        let location = source.at(&attribute.value);
        match scope.evaluate(&attribute.value) {
            Ok(value) => {
                let name_location = cut_behind(source.at(&attribute.key));
                result.push(Assignment {
                    name,
                    value,
                    name_location,
                    location,
                });
            }
            Err(reason) => found.push(Diagnostic::error(&name, reason).at(location.without_text()).help(
                "a value in a variable file is a plain one: text in double quotes, a number, true, false or a list",
            )),
        }
    }
    result
}
