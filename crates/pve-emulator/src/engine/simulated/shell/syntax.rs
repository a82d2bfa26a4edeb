//! The syntax tree of a shell script.

use std::sync::Arc;

/// Commands one after the other.
pub(super) type List = Vec<Item>;
/// Parts that expand to one word, or to several.
pub(super) type Word = Vec<WordPart>;

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) and_or: AndOr,
    pub(super) background: bool,
}

/// Pipelines joined by `&&` (`true`) and `||` (`false`).
#[derive(Clone, Debug)]
pub(super) struct AndOr {
    pub(super) first: Pipeline,
    pub(super) rest: Vec<(bool, Pipeline)>,
}

#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) negated: bool,
    pub(super) commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub(super) enum Command {
    Simple(Simple),
    Compound(Compound, Vec<Redirect>),
    Function(String, Arc<Compound>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Simple {
    pub(super) assigns: Vec<Assign>,
    pub(super) words: Vec<Word>,
    pub(super) redirects: Vec<Redirect>,
}

#[derive(Clone, Debug)]
pub(super) struct Assign {
    pub(super) name: String,
    pub(super) value: Word,
    pub(super) append: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Compound {
    Brace(List),
    Subshell(List),
    If {
        branches: Vec<(List, List)>,
        otherwise: Option<List>,
    },
    For {
        name: String,
        words: Option<Vec<Word>>,
        body: List,
    },
    While {
        until: bool,
        condition: List,
        body: List,
    },
    Case {
        word: Word,
        arms: Vec<(Vec<Word>, List)>,
    },
    /// `[[ ... ]]`
    Test(Vec<Word>),
    /// `(( ... ))`
    Arithmetic(String),
}

#[derive(Clone, Debug)]
pub(super) struct Redirect {
    pub(super) fd: u32,
    pub(super) kind: RedirectKind,
}

#[derive(Clone, Debug)]
pub(super) enum RedirectKind {
    Read(Word),
    Write { word: Word, both: bool },
    Append { word: Word, both: bool },
    Duplicate(Word),
    Here(Word),
    HereString(Word),
}

#[derive(Clone, Debug)]
pub(super) enum WordPart {
    /// Quoted text: never split, never a pattern.
    Literal(String),
    /// Unquoted text: may hold patterns and a leading tilde.
    Plain(String),
    Parameter {
        parameter: Parameter,
        quoted: bool,
    },
    Substitution {
        list: Arc<List>,
        quoted: bool,
    },
    Arithmetic(String),
}

#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    /// `${#name}`
    pub(super) length: bool,
    pub(super) op: Option<ParameterOp>,
}

/// `if_empty`: the form with a colon, which treats an empty value as unset.
#[derive(Clone, Debug)]
pub(super) enum ParameterOp {
    Default {
        word: Word,
        if_empty: bool,
    },
    Assign {
        word: Word,
        if_empty: bool,
    },
    Alternative {
        word: Word,
        if_empty: bool,
    },
    Error {
        word: Word,
        if_empty: bool,
    },
    StripPrefix {
        pattern: Word,
        longest: bool,
    },
    StripSuffix {
        pattern: Word,
        longest: bool,
    },
    Replace {
        pattern: Word,
        replacement: Word,
        all: bool,
    },
    /// `${name,,}` and `${name^^}`: all in lower or upper case.
    Case {
        upper: bool,
    },
}
