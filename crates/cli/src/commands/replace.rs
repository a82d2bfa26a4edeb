//! The options of a build that takes the place of a template of its name.

use std::time::Duration;

use image_build::{OldTemplate, Replace};

use super::ip_configs;
use crate::args::{OldArg, ReplaceArgs};
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
    if let Some(seconds) = args.verify_timeout {
        replace = replace.verify_limit(Duration::from_secs(seconds));
    }
    Ok(Some(replace))
}
