//! The functions of HCL that variable files and locals commonly use. None reads the clock, a file or the network.

use hcl::Value;
use hcl::eval::{Context, FuncArgs, FuncDef, ParamType};

type Outcome = Result<Value, String>;

/// Their names, with `env`, which is dealt with before evaluation.
pub(super) const NAMES: &[&str] = &[
    "env",
    "lower",
    "upper",
    "trimspace",
    "trim",
    "trimprefix",
    "trimsuffix",
    "replace",
    "split",
    "join",
    "format",
    "substr",
    "startswith",
    "endswith",
    "strcontains",
    "length",
    "concat",
    "contains",
    "distinct",
    "sort",
    "reverse",
    "compact",
    "element",
    "coalesce",
    "lookup",
    "merge",
    "keys",
    "values",
    "tostring",
    "tonumber",
    "tobool",
    "basename",
    "dirname",
    "jsonencode",
];

pub(super) fn declare(context: &mut Context<'_>) {
    use ParamType::{Any, Number, String};
    let list = || ParamType::array_of(Any);
    let map = || ParamType::object_of(Any);
    let mut fixed = |name: &str, params: Vec<ParamType>, func: fn(FuncArgs) -> Outcome| {
        context.declare_func(name, FuncDef::builder().params(params).build(func));
    };
    fixed("lower", vec![String], |args| Ok(text(&args, 0).to_lowercase().into()));
    fixed("upper", vec![String], |args| Ok(text(&args, 0).to_uppercase().into()));
    fixed("trimspace", vec![String], |args| Ok(text(&args, 0).trim().into()));
    fixed("trim", vec![String, String], |args| {
        let cut: Vec<char> = text(&args, 1).chars().collect();
        Ok(text(&args, 0).trim_matches(cut.as_slice()).into())
    });
    fixed("trimprefix", vec![String, String], |args| {
        Ok(text(&args, 0)
            .strip_prefix(text(&args, 1))
            .unwrap_or(text(&args, 0))
            .into())
    });
    fixed("trimsuffix", vec![String, String], |args| {
        Ok(text(&args, 0)
            .strip_suffix(text(&args, 1))
            .unwrap_or(text(&args, 0))
            .into())
    });
    fixed("replace", vec![String, String, String], |args| {
        let from = text(&args, 1);
        // Packer reads /.../ as a regular expression; taking it literally would be silently wrong.
        if from.len() > 1 && from.starts_with('/') && from.ends_with('/') {
            return Err("regular expressions are not supported".to_owned());
        }
        Ok(text(&args, 0).replace(from, text(&args, 2)).into())
    });
    fixed("split", vec![String, String], |args| {
        Ok(text(&args, 1).split(text(&args, 0)).collect::<Vec<_>>().into())
    });
    fixed("substr", vec![String, Number, Number], substr);
    fixed("startswith", vec![String, String], |args| {
        Ok(text(&args, 0).starts_with(text(&args, 1)).into())
    });
    fixed("endswith", vec![String, String], |args| {
        Ok(text(&args, 0).ends_with(text(&args, 1)).into())
    });
    fixed("strcontains", vec![String, String], |args| {
        Ok(text(&args, 0).contains(text(&args, 1)).into())
    });
    fixed("length", vec![Any], length);
    fixed("contains", vec![list(), Any], |args| {
        Ok(items(&args, 0).contains(&args[1]).into())
    });
    fixed("distinct", vec![list()], |args| {
        let mut found: Vec<Value> = Vec::new();
        for value in items(&args, 0) {
            if !found.contains(value) {
                found.push(value.clone());
            }
        }
        Ok(found.into())
    });
    fixed("sort", vec![ParamType::array_of(String)], |args| {
        let mut texts: Vec<&str> = items(&args, 0).iter().filter_map(Value::as_str).collect();
        texts.sort_unstable();
        Ok(texts.into())
    });
    fixed("reverse", vec![list()], |args| {
        Ok(items(&args, 0).iter().rev().cloned().collect::<Vec<_>>().into())
    });
    fixed("compact", vec![ParamType::array_of(String)], |args| {
        Ok(items(&args, 0)
            .iter()
            .filter(|value| value.as_str() != Some(""))
            .cloned()
            .collect::<Vec<_>>()
            .into())
    });
    fixed("element", vec![list(), Number], |args| {
        let (values, index) = (
            items(&args, 0),
            args[1].as_u64().and_then(|index| usize::try_from(index).ok()),
        );
        let index = index.filter(|_| !values.is_empty()).ok_or("no such element")?;
        Ok(values[index % values.len()].clone())
    });
    fixed("lookup", vec![map(), String, Any], |args| {
        let found = args[0].as_object().and_then(|map| map.get(text(&args, 1)));
        Ok(found.unwrap_or(&args[2]).clone())
    });
    fixed("keys", vec![map()], |args| {
        let mut keys: Vec<&str> = args[0]
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
            .map(std::string::String::as_str)
            .collect();
        keys.sort_unstable();
        Ok(keys.into())
    });
    fixed("values", vec![map()], |args| {
        let mut entries: Vec<_> = args[0].as_object().into_iter().flatten().collect();
        entries.sort_by(|a, b| a.0.cmp(b.0));
        Ok(entries
            .into_iter()
            .map(|(_, value)| value.clone())
            .collect::<Vec<_>>()
            .into())
    });
    fixed("tostring", vec![Any], |args| {
        convert(&super::kind::Kind::String, &args[0])
    });
    fixed("tonumber", vec![Any], |args| {
        convert(&super::kind::Kind::Number, &args[0])
    });
    fixed("tobool", vec![Any], |args| convert(&super::kind::Kind::Bool, &args[0]));
    fixed("basename", vec![String], |args| {
        Ok(text(&args, 0).rsplit('/').next().unwrap_or_default().into())
    });
    fixed("dirname", vec![String], |args| {
        Ok(text(&args, 0).rsplit_once('/').map_or(".", |(dir, _)| dir).into())
    });
    fixed("jsonencode", vec![Any], |args| {
        serde_json::to_string(&args[0])
            .map(Value::from)
            .map_err(|error| error.to_string())
    });

    let mut variadic = |name: &str, params: Vec<ParamType>, rest: ParamType, func: fn(FuncArgs) -> Outcome| {
        context.declare_func(name, FuncDef::builder().params(params).variadic_param(rest).build(func));
    };
    variadic("join", vec![String], list(), |args| {
        let parts = args
            .iter()
            .skip(1)
            .filter_map(Value::as_array)
            .flatten()
            .map(printed)
            .collect::<Option<Vec<_>>>();
        Ok(parts
            .ok_or("only texts, numbers and booleans can be joined")?
            .join(text(&args, 0))
            .into())
    });
    variadic("format", vec![String], Any, format);
    variadic("concat", vec![], list(), |args| {
        Ok(args
            .iter()
            .filter_map(Value::as_array)
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .into())
    });
    variadic("coalesce", vec![], Any, |args| {
        let empty = |value: &&Value| !value.is_null() && value.as_str() != Some("");
        args.iter()
            .find(empty)
            .cloned()
            .ok_or_else(|| "all are empty".to_owned())
    });
    variadic("merge", vec![], map(), |args| {
        let mut merged = hcl::Map::new();
        for (key, value) in args.iter().filter_map(Value::as_object).flatten() {
            merged.insert(key.clone(), value.clone());
        }
        Ok(Value::Object(merged))
    });
}

fn text(args: &FuncArgs, index: usize) -> &str {
    args[index].as_str().expect("the library checked the parameter's type")
}

fn items(args: &FuncArgs, index: usize) -> &Vec<Value> {
    args[index]
        .as_array()
        .expect("the library checked the parameter's type")
}

fn convert(kind: &super::kind::Kind, value: &Value) -> Outcome {
    kind.convert(value.clone())
        .ok_or_else(|| "it cannot be converted".to_owned())
}

fn printed(value: &Value) -> Option<String> {
    match super::kind::Kind::String.convert(value.clone())? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the library calls")]
fn length(args: FuncArgs) -> Outcome {
    match &args[0] {
        Value::String(text) => Ok(text.chars().count().into()),
        Value::Array(values) => Ok(values.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        _ => Err("it has no length".to_owned()),
    }
}

/// Characters from an offset; a negative length is all that follow.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the library calls")]
fn substr(args: FuncArgs) -> Outcome {
    let from = args[1]
        .as_u64()
        .and_then(|from| usize::try_from(from).ok())
        .ok_or("the offset must not be negative")?;
    let count = args[2].as_i64().ok_or("the length must be whole")?;
    let chars = text(&args, 0).chars().skip(from);
    let found: String = match usize::try_from(count) {
        Ok(count) => chars.take(count).collect(),
        Err(_) => chars.collect(),
    };
    Ok(found.into())
}

/// `%s`, `%d`, `%v` and `%%`; other verbs are refused, because a near miss would be worse.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the library calls")]
fn format(args: FuncArgs) -> Outcome {
    let mut values = args.iter().skip(1);
    let mut out = String::new();
    let mut chars = text(&args, 0).chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some('s' | 'd' | 'v') => {
                let value = values
                    .next()
                    .and_then(printed)
                    .ok_or("a value is missing or is no text")?;
                out.push_str(&value);
            }
            _ => return Err("only %s, %d, %v and %% are supported".to_owned()),
        }
    }
    if values.next().is_some() {
        Err("there are more values than places".to_owned())
    } else {
        Ok(out.into())
    }
}
