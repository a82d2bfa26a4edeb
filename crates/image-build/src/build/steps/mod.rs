//! The steps of a build, one file each.

mod come_back;
mod connect;
mod create;
mod finalise;
mod install;
mod manifest;
mod media;
mod medium;
mod preflight;
mod provision;
mod publish;
mod reserve;
mod seal;
mod shut_down;
mod template;

pub(super) use finalise::template_tags;
pub(crate) use medium::needs_medium;

use std::path::PathBuf;

use super::context::Context;
use super::step::Step;

/// The steps that make a template from an installer ISO, in their order.
pub(super) fn from_iso(manifest: Option<PathBuf>) -> Vec<Box<dyn Step<Context>>> {
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
        Box::new(publish::Publish),
    ];
    if let Some(path) = manifest {
        steps.push(Box::new(manifest::Manifest { path }));
    }
    steps
}
