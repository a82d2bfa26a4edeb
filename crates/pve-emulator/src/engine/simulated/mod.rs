//! The engine `simulated`: a guest is a state machine in this process, with a real SSH server behind it.
//!
//! | module | what |
//! | --- | --- |
//! | `engine` | guests by vmid, addresses, records |
//! | `guest` | one guest's life |
//! | `firmware`, `menu`, `keys` | what boots, and what typed keys make of it |
//! | `iso`, `http`, `kickstart`, `installer` | finding a kickstart and installing by it |
//! | `system`, `accounts`, `files`, `pattern`, `packages`, `crypt` | what lies on the disk |
//! | `host`, `shell`, `sshd`, `agent` | the installed system at work |
//! | `cloudinit`, `units`, `k3s` | what happens at its boot: cloud-init, unit files with their programs, a model of k3s |
//! | `serial`, `display`, `rfb` | a serial port; the console's text as a picture; the VNC server that shows it |
//! | `options`, `clock`, `console`, `record` | pace and faults; what can be read back |
//!
//! Nothing of a guest runs on the host: its commands are those of a small shell over its own file tree, and script files
//! are recorded, not interpreted. What they lay down is: the program of a unit, once it lies in the tree, is run by that shell.

mod accounts;
mod agent;
mod clock;
mod cloudinit;
mod console;
mod display;
mod engine;
mod files;
mod firmware;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guest;
mod host;
mod http;
mod installer;
mod iso;
mod k3s;
mod keys;
mod kickstart;
mod menu;
mod options;
mod packages;
mod pattern;
mod record;
mod rfb;
mod serial;
mod shell;
mod sshd;
mod system;
mod units;

use crate::crypt;

#[cfg(test)]
mod tests;

pub use engine::SimulatedEngine;
pub use options::{Durations, Fault, FaultKind, SimulatedOptions, TimeScale};
pub use record::{GuestRecord, GuestState, InstalledSummary, ScriptRun};
