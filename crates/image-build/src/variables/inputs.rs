//! `Inputs`: what was given beside the folder itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// One `-var` or `-var-file`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// `-var NAME=VALUE`.
    Var {
        /// The variable.
        name: String,
        /// Its value, read by the variable's type.
        value: String,
    },
    /// `-var-file FILE`.
    File(PathBuf),
}

// Values can be secrets, and which are is known only when the declarations have been read.
impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Var { name, value: _ } => f.debug_struct("Var").field("name", name).finish_non_exhaustive(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// What is given beside the folder: the environment, then `-var` and `-var-file` in their order.
#[derive(Clone, Default)]
pub struct Inputs {
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) given: Vec<Input>,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { environment, given } = self;
        let names: Vec<&str> = environment
            .keys()
            .map(String::as_str)
            .filter(|name| name.starts_with(super::merge::PREFIX))
            .collect();
        f.debug_struct("Inputs")
            .field("environment", &names)
            .field("given", given)
            .finish()
    }
}

impl Inputs {
    /// Nothing beside the folder, and an empty environment.
    pub fn new() -> Self {
        Self::default()
    }

    /// The environment of this process: `PKR_VAR_*`, and what `env("...")` in a default asks for.
    ///
    /// Variables that are not UTF-8 are left out, as HCL could not hold them.
    pub fn from_env() -> Self {
        let text =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self {
            environment: text.collect(),
            given: Vec::new(),
        }
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Adds `-var NAME=VALUE`.
    #[must_use]
    pub fn var(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.given.push(Input::Var {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Adds `-var-file FILE`.
    #[must_use]
    pub fn var_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.given.push(Input::File(path.into()));
        self
    }
}
