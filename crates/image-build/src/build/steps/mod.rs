//! The steps of a build, one file each.

mod come_back;
mod connect;
mod create;
mod delete_old;
mod finalise;
mod install;
mod manifest;
mod media;
mod medium;
mod preflight;
mod provision;
mod publish;
mod reserve;
mod retire;
mod seal;
mod shut_down;
mod template;
mod verify;

pub(crate) use delete_old::{DELETE_OLD, vms};
pub(super) use finalise::template_tags;
pub(crate) use medium::needs_medium;
pub(crate) use retire::RETIRE;

use std::path::PathBuf;

use super::context::Context;
use super::step::Step;
use crate::replace::OldTemplate;

/// The steps of a replacement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swap {
    /// Whether the new template is verified.
    pub(super) verifies: bool,
    /// What becomes of the old one.
    pub(super) then: OldTemplate,
}

/// The steps that make a template from an installer ISO, in their order.
pub(super) fn from_iso(manifest: Option<PathBuf>, swap: Option<Swap>) -> Vec<Box<dyn Step<Context>>> {
    let mut steps: Vec<Box<dyn Step<Context>>> = vec![
        Box::new(preflight::Preflight {
            manifest: manifest.clone(),
        }),
        Box::new(reserve::Reserve),
        Box::new(media::PrepareMedia),
        Box::new(create::Create),
        Box::new(install::Install),
        Box::new(connect::Connect),
        Box::new(provision::Provision),
        Box::new(seal::Seal),
        Box::new(shut_down::ShutDown),
        Box::new(finalise::Finalise),
        Box::new(template::Template),
    ];
    if swap.is_some_and(|swap| swap.verifies) {
        steps.push(Box::new(verify::Verify));
    }
    if swap.is_some() {
        steps.push(Box::new(retire::Retire));
    }
    steps.push(Box::new(publish::Publish));
    if swap.is_some_and(|swap| swap.then == OldTemplate::Delete) {
        steps.push(Box::new(delete_old::DeleteOld));
    }
    if let Some(path) = manifest {
        steps.push(Box::new(manifest::Manifest { path }));
    }
    steps
}
