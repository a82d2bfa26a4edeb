//! The options of a build that takes the place of a template of its name.

use std::time::Duration;

use image_build::{OldTemplate, Replace};

use super::ip_configs;
use crate::args::{BuildArgs, OldArg, ReplaceArgs};
use crate::output::Problem;

/// What was asked; `None` without `--replace`.
pub(super) fn asked(args: &ReplaceArgs) -> Result<Option<Replace>, Box<Problem>> {
    let Some(old) = args.replace else { return Ok(None) };
    let mut replace = Replace::new(match old {
        OldArg::Retire => OldTemplate::Retire,
        OldArg::Delete => OldTemplate::Delete,
    })
    .verify(!args.no_verify);
    if let Some(configs) = ip_configs(&args.ipconfig)? {
        replace = replace.ip_configs(configs);
    }
    Ok(Some(replace))
}

/// The same of a build, which also waits for the clones.
pub(super) fn of_build(args: &BuildArgs) -> Result<Option<Replace>, Box<Problem>> {
    let limit = args.verify_timeout.map(Duration::from_secs);
    Ok(asked(&args.replace)?.map(|replace| match limit {
        Some(limit) => replace.verify_limit(limit),
        None => replace,
    }))
}
