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
mod move_old;
mod preflight;
mod provision;
mod publish;
mod renumber;
mod reserve;
mod retire;
mod seal;
mod shut_down;
mod template;
mod verify;

pub(crate) use delete_old::DELETE_OLD;
pub(super) use finalise::{FINALISE, template_tags};
pub(crate) use medium::needs_medium;
pub(crate) use move_old::MOVE_OLD;
pub(crate) use publish::PUBLISH;
pub(crate) use renumber::RENUMBER;
pub(crate) use retire::RETIRE;
pub(super) use seal::SEAL;
pub(super) use shut_down::SHUT_DOWN;
pub(super) use template::TEMPLATE;

use std::path::PathBuf;

use super::context::Context;
use super::step::Step;
use crate::replace::{OldTemplate, Replacing};

/// The steps of a replacement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swap {
    /// Whether the new template is verified.
    pub(super) verifies: bool,
    /// What becomes of the old one.
    pub(super) then: OldTemplate,
    /// Whether the new one is to have its number.
    pub(super) renumbers: bool,
}

impl Swap {
    /// As the journal has it.
    pub(super) fn of(replacing: &Replacing) -> Self {
        Self {
            verifies: replacing.verification.is_some(),
            then: replacing.then,
            renumbers: replacing.renumber,
        }
    }

    /// The steps that are still to be done when the new template bears the name, and is complete.
    pub(super) fn rest(self) -> &'static [&'static str] {
        match (self.then, self.renumbers) {
            (OldTemplate::Retire, false) => &[],
            (OldTemplate::Delete, false) => &[DELETE_OLD],
            (OldTemplate::Retire, true) => &[MOVE_OLD, RENUMBER],
            (OldTemplate::Delete, true) => &[DELETE_OLD, RENUMBER],
        }
    }
}

/// Whether a build that has begun this step last has a complete image, which nothing takes away again.
pub(crate) fn is_complete(step: &str) -> bool {
    [MOVE_OLD, DELETE_OLD, RENUMBER].contains(&step)
}

/// Whether the guest is not sealed yet while this step runs, or not any more.
pub(super) fn comes_before_seal(step: &str) -> bool {
    ["media", "create", "install", "connect", "provision", "seal"].contains(&step)
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
    for step in swap.map(Swap::rest).unwrap_or_default() {
        match *step {
            MOVE_OLD => steps.push(Box::new(move_old::MoveOld)),
            DELETE_OLD => steps.push(Box::new(delete_old::DeleteOld)),
            _ => steps.push(Box::new(renumber::Renumber)),
        }
    }
    if let Some(path) = manifest {
        steps.push(Box::new(manifest::Manifest { path }));
    }
    steps
}
