//! The readers of variables with what must hold of them; see [`crate::fuzzing`].

use std::collections::BTreeMap;
use std::path::Path;
use std::str::from_utf8;

use super::evaluate::Scope;
use super::hcl_file::{Source, assignments, declarations};
use super::json_file;
use crate::Diagnostics;
use crate::fuzzing::stands_in;

/// Declarations and values of variables, in HCL and JSON.
///
/// # Panics
/// When a property does not hold.
pub fn hcl(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let environment = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
    let scope = Scope::new(&environment);
    let source = Source {
        file: Path::new("a.hcl"),
        text,
    };
    let mut found = Diagnostics::new();
    let declared = declarations(source, &scope, &mut found);
    for local in &declared.locals {
        let _ = scope.evaluate(&local.expression);
    }
    for condition in declared.variables.iter().flat_map(|variable| &variable.validations) {
        let _ = scope.evaluate(&condition.condition);
    }
    stands_in(text, &found);
    for read in [
        |source: Source<'_>, scope: &Scope<'_>, found: &mut Diagnostics| assignments(source, scope, found),
        |source: Source<'_>, _: &Scope<'_>, found: &mut Diagnostics| json_file::assignments(source, found),
    ] {
        let mut found = Diagnostics::new();
        let values = read(source, &scope, &mut found);
        for (index, value) in values.iter().enumerate() {
            assert!(
                values[..index].iter().all(|earlier| earlier.name != value.name),
                "{} is set twice",
                value.name
            );
        }
        stands_in(text, &found);
    }
}
