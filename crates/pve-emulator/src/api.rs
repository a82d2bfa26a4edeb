//! The calls, one file a branch of the API.

mod access;
mod cluster;
mod download;
mod images;
mod nodes;
mod permission;
mod pools;
mod qemu;
mod routes;
mod storage;
mod tasks;
mod upload;

pub(crate) use access::uuid;
pub(crate) use nodes::cpu_models;
pub(crate) use permission::check_permission;
pub(crate) use qemu::adopt;
pub(crate) use routes::{Call, Outcome, Routes, dispatch};
