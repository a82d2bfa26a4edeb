//! The engine `qemu`: a guest is a QEMU process on this machine, with real firmware, disks, consoles and agent.
//!
//! | module | what |
//! | --- | --- |
//! | `engine` | guests by vmid; what the API asks |
//! | `guest` | one running guest: events, counters, end |
//! | `command` | the command line, from `machine`, `cpu`, `firmware`, `devices`, `drives`, `network`, placed by `pci` |
//! | `qmp`, `agent` | QEMU's monitor and the guest's agent |
//! | `process`, `run_dir` | the process and the folder it runs in |
//! | `adopt` | guests that outlived an emulator |
//! | `images` | disks, by `qemu-img` |
//! | `accel`, `programs`, `options`, `property` | what is there, what is asked for |
//!
//! Debian 12's QEMU 7.2 will do, no privileges are needed. A guest sees the hardware that PVE would give it, at the same
//! addresses; it differs in what lies behind: user-mode network instead of a bridge (`network`), files instead of volumes.

mod accel;
mod adopt;
mod agent;
mod command;
mod cpu;
mod devices;
mod drives;
mod engine;
mod firmware;
mod guest;
mod images;
mod machine;
mod network;
mod options;
mod pci;
mod process;
mod programs;
mod property;
mod qmp;
mod run_dir;

pub use accel::Accel;
pub use engine::QemuEngine;
pub use options::QemuOptions;
