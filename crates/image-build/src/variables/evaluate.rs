//! Evaluates expressions: `var.`, `local.`, `env()` and the functions that variable files commonly use.

use std::collections::BTreeMap;

use hcl::eval::{Context, ErrorKind, Evaluate as _};
use hcl::{Map, Value};
use hcl_edit::expr::{Expression, FuncCall};
use hcl_edit::visit_mut::{VisitMut, visit_expr_mut};

use super::functions;

/// What an expression may refer to.
pub(super) struct Scope<'a> {
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) variables: Map<String, Value>,
    pub(super) locals: Map<String, Value>,
}

impl<'a> Scope<'a> {
    /// Nothing but the environment, which is all that a default may use.
    pub(super) fn new(environment: &'a BTreeMap<String, String>) -> Self {
        Self {
            environment,
            variables: Map::new(),
            locals: Map::new(),
        }
    }

    /// The value of an expression, or a sentence that says why it has none; values do not stand in it.
    pub(super) fn evaluate(&self, expression: &Expression) -> Result<Value, String> {
        let mut expression = expression.clone();
        let mut env = EnvCalls {
            environment: self.environment,
            problem: None,
        };
        env.visit_expr_mut(&mut expression);
        if let Some(problem) = env.problem {
            return Err(problem);
        }
        let mut context = Context::new();
        context.declare_var("var", self.variables.clone());
        context.declare_var("local", self.locals.clone());
        functions::declare(&mut context);
        hcl::Expression::from(expression)
            .evaluate(&context)
            .map_err(|error| match error.kind() {
                ErrorKind::UndefinedVar(name) => {
                    format!("`{name}` is not known here: write var.{name} or local.{name}")
                }
                ErrorKind::UndefinedFunc(name) => {
                    format!(
                        "the function {} is not supported; there are {}",
                        name.name,
                        functions::NAMES.join(", ")
                    )
                }
                ErrorKind::NoSuchKey(key) => format!("there is no `{key}` in what is asked"),
                ErrorKind::FuncCall(name, _) => format!("the call of {} does not fit its arguments", name.name),
                ErrorKind::Index(index) => format!("the index {index} is out of range"),
                // The other texts of the library print the value that it met, which can be a secret.
                _ => "the expression does not fit its operands".to_owned(),
            })
    }
}

/// Puts values of the environment in place of `env("NAME")`: functions of the library cannot hold on to a map.
struct EnvCalls<'a> {
    environment: &'a BTreeMap<String, String>,
    problem: Option<String>,
}

impl VisitMut for EnvCalls<'_> {
    fn visit_expr_mut(&mut self, node: &mut Expression) {
        if let Expression::FuncCall(call) = node
            && call.name.name.as_str() == "env"
            && call.name.namespace.is_empty()
        {
            match env_name(call) {
                // As Packer has it, a variable that is not set is empty.
                Some(name) => *node = Expression::from(self.environment.get(name).cloned().unwrap_or_default()),
                None => {
                    self.problem = Some("env takes the name of an environment variable in double quotes".to_owned());
                }
            }
            return;
        }
        visit_expr_mut(self, node);
    }
}

fn env_name(call: &FuncCall) -> Option<&str> {
    let mut args = call.args.iter();
    match (args.next(), args.next()) {
        (Some(Expression::String(name)), None) => Some(name.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(text: &str) -> Result<Value, String> {
        let environment = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
        let mut scope = Scope::new(&environment);
        scope
            .variables
            .insert("k3s_version".to_owned(), Value::from("v1.29.0+k3s1"));
        scope.variables.insert("tags".to_owned(), Value::from(vec!["a", "b"]));
        scope.locals.insert("major".to_owned(), Value::from(9));
        scope.evaluate(&text.parse().expect(text))
    }

    #[test]
    fn expressions() {
        for (text, want) in [
            ("env(\"HOME\")", Value::from("/root")),
            ("env(\"NOT_SET\")", Value::from("")),
            ("\"${env(\"HOME\")}/x\"", Value::from("/root/x")),
            (
                "\"alma${local.major}-${split(\"+\", var.k3s_version)[0]}\"",
                Value::from("alma9-v1.29.0"),
            ),
            ("concat(var.tags, [\"c\"])", Value::from(vec!["a", "b", "c"])),
            ("length(var.tags) > 1 ? upper(\"yes\") : \"no\"", Value::from("YES")),
            ("replace(var.k3s_version, \"+\", \"-\")", Value::from("v1.29.0-k3s1")),
            (
                "startswith(var.k3s_version, \"v1.\") && !contains(var.tags, \"z\")",
                Value::from(true),
            ),
            ("join(\",\", sort([\"b\", \"a\"]))", Value::from("a,b")),
            ("format(\"%s-%d\", \"v\", 2)", Value::from("v-2")),
            ("coalesce(\"\", \"x\")", Value::from("x")),
            ("tonumber(\"12\") + 1", Value::from(13)),
        ] {
            assert_eq!(evaluate(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_has_no_value_says_why() {
        for (text, want) in [
            ("nonsense", "write var.nonsense"),
            ("timestamp()", "function timestamp is not supported"),
            ("var.missing", "no `missing`"),
            ("env(1)", "in double quotes"),
            ("tonumber(\"secret\")", "does not fit its arguments"),
            ("upper(1, 2)", "does not fit its arguments"),
            ("\"secret\" + 1", "does not fit its operands"),
        ] {
            let error = evaluate(text).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
