//! What the emulated cluster is made of: users and rights, storages and volumes, VMs.

mod access;
mod doors;
mod files;
mod lock;
mod machine;
mod nodes;
mod storage;
mod world;

pub(crate) use access::{Access, Acl, Group, Identity, Pool, Secret, Token, User};
pub(crate) use doors::{Doors, Listening};
pub(crate) use files::{copy_aside, now, sweep, write_whole};
pub(crate) use lock::lock;
pub(crate) use machine::{ConfigMap, Machine, Snapshot, typed, typed_map};
pub(crate) use nodes::{NodeState, Nodes};
pub use storage::{StorageKind, StorageSpec};
pub(crate) use storage::{Storages, Volume, file_volume, parse_volume_name, size_text};
pub use world::Timing;
pub(crate) use world::{Settings, World, save_access};
