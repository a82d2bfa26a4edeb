//! The privileges that our documentation names, against the `permissions` of the schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::schema::{Schema, schema};

const SOURCES: [(&str, &str); 6] = [
    ("agent", include_str!("../../api/agent.rs")),
    ("node", include_str!("../../api/node.rs")),
    ("qemu", include_str!("../../api/qemu.rs")),
    ("storage", include_str!("../../api/storage.rs")),
    ("task", include_str!("../../api/task.rs")),
    ("client", include_str!("../../client.rs")),
];

const PAGE: &str = include_str!("../../../../../docs/reference/privileges.md");

/// What the sections may name although the schema does not: what a VM's single options need is in the recordings only.
const RECORDED: &str = "VM.Config.*";

/// A check expression of the schema as our documentation words it.
fn words_of(check: &Value) -> String {
    let parts = check.as_array().expect("an expression");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let kind = text(&parts[0]);
    if kind == "and" || kind == "or" {
        let inner = parts[1..].iter().map(|part| match part[0].as_str() {
            Some("and" | "or") => format!("({})", words_of(part)),
            _ => words_of(part),
        });
        return inner.collect::<Vec<_>>().join(&format!(" {kind} "));
    }
    assert_eq!(kind, "perm", "{check}");
    let option = |name: &str| {
        let at = parts.iter().position(|part| part == name)?;
        parts.get(at + 1)
    };
    let between = if option("any").is_some() { " or " } else { " and " };
    let privileges: Vec<String> = parts[2]
        .as_array()
        .expect("a list")
        .iter()
        .map(|privilege| format!("`{}`", text(privilege)))
        .collect();
    let with = option("require_param").map(|name| format!(" (with `{}`)", text(name)));
    format!(
        "{} on `{}`{}",
        privileges.join(between),
        text(&parts[1]),
        with.unwrap_or_default()
    )
}

/// The names of privileges in a text.
fn named(text: &str) -> BTreeSet<String> {
    let name = regex_lite::Regex::new(r"\b(?:VM|Datastore|SDN|Sys|Pool)\.[A-Z][A-Za-z.]*(?:[A-Za-z]|\.\*)")
        .expect("an expression");
    name.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

/// What is wrong with what we say that a call needs.
fn fault(schema: &Schema, call: &str, said: &str) -> Option<String> {
    let (method, path) = call.split_once(' ').expect("a call");
    let Some(info) = schema.get(&(method.to_owned(), path.to_owned())) else {
        return Some("not in the schema".to_owned());
    };
    let permissions = &info["permissions"];
    let (said, of_8) = said
        .split_once(" PVE 8: ")
        .map_or((said, None), |(said, rest)| (said, Some(rest)));
    if path.contains("/agent/") != of_8.is_some_and(|rest| rest.starts_with("`VM.Monitor` on `/vms/{vmid}`.")) {
        return Some("PVE 8 has `VM.Monitor` for the agent's calls, and for no other".to_owned());
    }
    let wanted = named(&permissions.to_string());
    if let Some(check) = permissions.get("check") {
        let words = format!("{}.", words_of(check));
        if !said.starts_with(&words) {
            return Some(format!("the schema says {words}"));
        }
    } else if wanted.is_empty() && !said.starts_with("None") {
        return Some("the schema names no privilege".to_owned());
    }
    let mut said = named(said);
    said.remove(RECORDED);
    (said != wanted).then(|| format!("the schema names {wanted:?}, we {said:?}"))
}

/// The blocks of doc comments in a source, each as one text.
fn blocks(source: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in source.lines() {
        match line.trim_start().strip_prefix("///") {
            Some(text) => {
                let block = blocks.last_mut().expect("never empty");
                block.push_str(text.trim());
                block.push('\n');
            }
            None if blocks.last().is_some_and(|block| !block.is_empty()) => blocks.push(String::new()),
            None => {}
        }
    }
    blocks
}

fn section<'a>(block: &'a str, title: &str) -> Option<&'a str> {
    let after = block.split_once(&format!("# {title}\n"))?.1;
    Some(after.split("\n# ").next().unwrap_or(after))
}

#[test]
fn each_call_of_a_handle_names_what_the_schema_asks() {
    let schema = schema();
    let call = regex_lite::Regex::new("`((?:GET|POST|PUT|DELETE) /[^`]*)`").expect("an expression");
    let mut seen = 0;
    for (file, source) in SOURCES {
        for block in blocks(source) {
            let Some(found) = section(&block, "Source").and_then(|source| call.captures(source)) else {
                continue;
            };
            let call = &found[1];
            let said = section(&block, "Privileges").unwrap_or_else(|| panic!("{file}: {call} has no `# Privileges`"));
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(fault(&schema, call, &said), None, "{file}: {call}: {said}");
            seen += 1;
        }
    }
    assert!(seen >= 40, "{seen}");
}

#[test]
fn each_row_of_the_page_names_what_the_schema_asks() {
    let schema = schema();
    let row = regex_lite::Regex::new(r"(?m)^\| `((?:GET|POST|PUT|DELETE) /[^`]*)` \| (.*) \|$").expect("an expression");
    let rows: BTreeMap<&str, &str> = row
        .captures_iter(PAGE)
        .map(|found| {
            let (call, said) = (found.get(1).expect("a call"), found.get(2).expect("a text"));
            (call.as_str(), said.as_str())
        })
        .collect();
    for (call, said) in &rows {
        assert_eq!(fault(&schema, call, said), None, "{call}: {said}");
    }
    assert!(rows.len() >= 20, "{}", rows.len());
}

#[test]
fn the_check_itself_finds_faults() {
    let schema = schema();
    for (call, said, want) in [
        ("GET /nosuch", "None.", "not in the schema"),
        (
            "GET /nodes/{node}/status",
            "`Sys.Modify` on `/nodes/{node}`.",
            "the schema says `Sys.Audit`",
        ),
        (
            "GET /nodes/{node}/status",
            "`Sys.Audit` on `/`.",
            "the schema says `Sys.Audit` on `/nodes/{node}`",
        ),
        ("GET /pools", "None. Only some are listed.", "Pool.Audit"),
        ("GET /version", "`Sys.Audit` on `/`.", "no privilege"),
        (
            "POST /nodes/{node}/qemu/{vmid}/agent/exec",
            "`VM.GuestAgent.Unrestricted` on `/vms/{vmid}`.",
            "VM.Monitor",
        ),
        (
            "POST /nodes/{node}/qemu/{vmid}/template",
            "`VM.Allocate` on `/vms/{vmid}`. And `VM.Clone`.",
            "VM.Clone",
        ),
    ] {
        let fault = fault(&schema, call, said).unwrap_or_default();
        assert!(fault.contains(want), "{call}, {said}: {fault}");
    }
}
