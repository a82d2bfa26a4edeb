//! A second, smaller reading of the schema: which values PVE must refuse, and under which name.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// One call of the schema.
pub(crate) struct Call {
    pub(crate) method: String,
    /// `/nodes/{node}/qemu`
    pub(crate) template: String,
    /// By name; of an indexed parameter the first, `net0`.
    pub(crate) params: BTreeMap<String, Value>,
    /// Whether parameters that are not in the schema are refused.
    pub(crate) closed: bool,
    /// Whether root's token gets as far as the parameters.
    pub(crate) open_to_token: bool,
    /// The rights that it asks for; they may stand on a path made of parameters.
    rights: String,
}

impl Call {
    pub(crate) fn key(&self) -> String {
        format!("{} {}", self.method, self.template)
    }

    pub(crate) fn is_in_path(&self, name: &str) -> bool {
        self.template.contains(&format!("{{{name}}}"))
    }

    /// Does the right to call it depend on the parameter? Rights come first, and nobody has any on a path of odd characters
    /// (recorded in `traces/http`, "utf-8 node").
    pub(crate) fn is_in_rights(&self, name: &str) -> bool {
        self.rights.contains(&format!("{{{name}}}")) || self.rights.contains(&format!("\"{name}\""))
    }

    /// Parameters that are not part of the path.
    pub(crate) fn free(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.params.iter().filter(|(name, _)| !self.is_in_path(name))
    }
}

/// Every call.
pub(crate) fn calls() -> Vec<Call> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pve/api-schema.json");
    let tree: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut calls = Vec::new();
    walk(&tree, &mut calls);
    calls
}

fn walk(nodes: &Value, calls: &mut Vec<Call>) {
    for node in nodes.as_array().into_iter().flatten() {
        for (method, info) in node["info"].as_object().into_iter().flatten() {
            let declared = info["parameters"]["properties"]
                .as_object()
                .cloned()
                .unwrap_or_default();
            calls.push(Call {
                method: method.clone(),
                template: node["path"].as_str().unwrap().to_owned(),
                params: declared
                    .into_iter()
                    .map(|(name, param)| (name.replace("[n]", "0"), param))
                    .collect(),
                closed: !is_true(&info["parameters"]["additionalProperties"]),
                open_to_token: is_true(&info["allowtoken"]) && !info["permissions"].is_null(),
                rights: info["permissions"]["check"].to_string(),
            });
        }
        walk(&node["children"], calls);
    }
}

/// A boolean as Perl prints it.
fn is_true(value: &Value) -> bool {
    !matches!(value.to_string().trim_matches('"'), "null" | "0" | "" | "false")
}

pub(crate) fn is_required(param: &Value) -> bool {
    !is_true(&param["optional"])
}

/// Is the text surely none that the parameter takes? What only a format could tell is left alone.
pub(crate) fn is_wrong(param: &Value, text: &str) -> bool {
    let limit = |name: &str| param[name].as_f64().or_else(|| param[name].as_str()?.parse().ok());
    let outside = |number: f64, low: &str, high: &str| {
        limit(low).is_some_and(|limit| number < limit) || limit(high).is_some_and(|limit| number > limit)
    };
    match kind(param) {
        "boolean" => text != "0" && text != "1",
        "integer" => {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            digits.is_empty()
                || !digits.bytes().all(|b| b.is_ascii_digit())
                || outside(text.parse().unwrap(), "minimum", "maximum")
        }
        "number" => {
            let spelled = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            let number = text.parse::<f64>().ok().filter(|_| spelled);
            number.is_none_or(|number| outside(number, "minimum", "maximum"))
        }
        "string" => {
            let words = param["enum"].as_array();
            #[expect(clippy::cast_precision_loss, reason = "texts of tests are short")]
            let length = text.chars().count() as f64;
            words.is_some_and(|words| !words.iter().any(|word| word == text))
                || outside(length, "minLength", "maxLength")
        }
        _ => false,
    }
}

/// Is a list, or an object, surely wrong for it?
pub(crate) fn is_scalar(param: &Value) -> bool {
    let list = param["format"].as_str().is_some_and(|format| format.ends_with("-list"));
    matches!(kind(param), "boolean" | "integer" | "number" | "string") && !list
}

fn kind(param: &Value) -> &str {
    param["type"].as_str().unwrap_or("string")
}
