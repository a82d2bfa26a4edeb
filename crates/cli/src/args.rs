//! The options of the command as clap reads them; one struct a subcommand.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::exit;
use crate::output::ColorChoice;
use crate::variable_args::VariableArgs;

/// Golden AlmaLinux 9 images with k3s inside, as templates on Proxmox VE.
#[derive(Debug, Parser)]
#[command(name = "k3simage", version, max_term_width = 120, after_help = exit::HELP, disable_help_subcommand = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Print one JSON object a line (events, findings, results) instead of text
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// Tell more: -v also the guest's output, -vv also the API requests
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub(crate) verbose: u8,
    /// Tell results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub(crate) quiet: bool,
    /// When to use colours; NO_COLOR is honoured
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        help_heading = "Output"
    )]
    pub(crate) color: ColorChoice,
    /// Append everything, with the guest's output and the API requests, to this file
    #[arg(long, global = true, value_name = "FILE", help_heading = "Output")]
    pub(crate) log_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a template folder, ready to edit
    Init(InitArgs),
    /// Check a template folder: variables, kickstart, scripts; in seconds, without network
    Validate(FolderArgs),
    /// Check what a build needs on the cluster: privileges, storages, node, ISO, name, vmid; changes nothing
    Plan(PlanArgs),
    /// Build the image and leave it as a template
    Build(BuildArgs),
    /// Go on with a build whose builder died, from its last completed step
    Resume(ResumeArgs),
    /// List the templates on the cluster that k3simage made
    List(ListArgs),
    /// Show a VM's serial console on this terminal, or save a picture of its screen
    Console(ConsoleArgs),
    /// Boot two clones of a template and prove that they share no identity and are well; they are removed again
    Verify(VerifyArgs),
    /// List what dead builds and verifications left on the cluster; with --yes, remove it
    Gc(GcArgs),
    /// Serve an emulated Proxmox VE on this machine, with simulated guests or real ones
    #[cfg(feature = "emulator")]
    Emulator(EmulatorArgs),
}

impl Command {
    /// Whether what it prints is all that it does: then it has failed when that could not be written.
    pub(crate) fn output_is_all(&self) -> bool {
        match self {
            Self::Validate(_) | Self::Plan(_) | Self::List(_) => true,
            Self::Console(args) => args.screenshot.is_none(),
            Self::Gc(args) => !args.yes,
            Self::Init(_) | Self::Build(_) | Self::Resume(_) | Self::Verify(_) => false,
            #[cfg(feature = "emulator")]
            Self::Emulator(_) => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Folder to write; files that are there are never overwritten
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// The template folder
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The template folder
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    /// Build on the embedded Proxmox VE emulator; no cluster and no token are needed. The guest is simulated, or a real VM
    /// with QEMU of this machine
    #[cfg(feature = "emulator")]
    #[arg(
        long,
        value_name = "ENGINE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "simulated"
    )]
    pub(crate) emulator: Option<EngineArg>,
    #[cfg(feature = "emulator")]
    #[command(flatten)]
    pub(crate) qemu: QemuArgs,
    /// Keep the emulator's VMs and storages in this folder; without it they end with the command
    #[cfg(feature = "emulator")]
    #[arg(long, value_name = "DIR", requires = "emulator")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
    /// How long a clone may take to its login, and k3s from there
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "replace",
        conflicts_with = "no_verify",
        help_heading = "Replacing a template"
    )]
    pub(crate) verify_timeout: Option<u64>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What a build does that takes the place of a template of its name, as far as a plan has to know it.
#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// Build beside the template that has this name, and take its place once the new one is finished and verified; the old one
    /// is kept under another name, or deleted
    #[arg(
        long,
        value_name = "OLD",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "retire",
        help_heading = "Replacing a template"
    )]
    pub(crate) replace: Option<OldArg>,
    /// Replace without booting two clones of the new template first
    #[arg(long, requires = "replace", help_heading = "Replacing a template")]
    pub(crate) no_verify: bool,
    /// Address of a clone as cloud-init is told it, such as ip=10.0.0.5/24,gw=10.0.0.1; given twice, for networks without DHCP
    #[arg(
        long,
        value_name = "IPCONFIG",
        requires = "replace",
        conflicts_with = "no_verify",
        help_heading = "Replacing a template"
    )]
    pub(crate) ipconfig: Vec<String>,
}

/// What becomes of the old template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OldArg {
    /// Keep it under another name, without the tag of images
    Retire,
    /// Delete it at the end, unless linked clones stand on it
    Delete,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The build's id: eight hexadecimal digits, as its first line and `gc` show them
    pub(crate) build: String,
    /// The template folder, as it was when the build began
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Options of whatever runs a build.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Add the build to this manifest, in Packer's shape
    #[arg(long, value_name = "PATH")]
    pub(crate) manifest: Option<PathBuf>,
    /// What becomes of the VM when the build fails; stands above the variable on_error
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_error: Option<OnErrorArg>,
    /// How many seconds the build counts as living when its process gives no sign; until then no one may resume or collect it
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) lease: u64,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// A template folder to take the connection from; without one, -var, -var-file and PKR_VAR_* give it
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    /// Remove what is listed as dead
    #[arg(long)]
    pub(crate) yes: bool,
    /// How many seconds old a volume without a VM has to be until it counts as left behind
    #[arg(long, value_name = "SECONDS", default_value_t = image_build::gc::VOLUME_AGE.as_secs())]
    pub(crate) volume_age: u64,
}

/// What becomes of the VM when a build fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnErrorArg {
    /// Remove all that the build made
    Cleanup,
    /// Leave it as it is, for a look
    Keep,
    /// Ask on the terminal
    Ask,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// A template folder to take the connection from; without one, -var, -var-file and PKR_VAR_* give it
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    /// List those too whose place another one has taken
    #[arg(long)]
    pub(crate) retired: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// Name or number of the VM
    #[arg(value_name = "NAME|VMID")]
    pub(crate) vm: String,
    /// A template folder to take the connection from; without one, -var, -var-file and PKR_VAR_* give it
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    /// Save a picture of the screen in this file (PNG), and attach to nothing
    #[arg(long, value_name = "FILE")]
    pub(crate) screenshot: Option<PathBuf>,
    /// The serial port, 0 to 3
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3), conflicts_with = "screenshot")]
    pub(crate) port: u8,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Name or vmid of the template
    #[arg(value_name = "NAME")]
    pub(crate) template: String,
    /// A template folder to take the connection from; without one, -var, -var-file and PKR_VAR_* give it
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    /// Verify a template of the embedded emulator, out of the folder that `build --emulator --data` has left
    #[cfg(feature = "emulator")]
    #[arg(
        long,
        value_name = "ENGINE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "simulated",
        requires = "data"
    )]
    pub(crate) emulator: Option<EngineArg>,
    #[cfg(feature = "emulator")]
    #[command(flatten)]
    pub(crate) qemu: QemuArgs,
    /// The emulator's folder
    #[cfg(feature = "emulator")]
    #[arg(long, value_name = "DIR", requires = "emulator")]
    pub(crate) data: Option<PathBuf>,
    /// Write the report there, as JSON
    #[arg(long, value_name = "FILE", default_value = "verify.json")]
    pub(crate) report: PathBuf,
    /// Copy the disks instead of cloning them linked
    #[arg(long)]
    pub(crate) full: bool,
    /// Where the disks of full clones go; without it where the template's are
    #[arg(long, value_name = "STORAGE", requires = "full")]
    pub(crate) storage: Option<String>,
    /// Pool that the clones join
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<String>,
    /// Storage for the small ISO that tells the second clone to join the first
    #[arg(long, value_name = "STORAGE", default_value = "local")]
    pub(crate) iso_storage: String,
    /// Address of a clone as cloud-init is told it, such as ip=10.0.0.5/24,gw=10.0.0.1; given twice, for networks without DHCP
    #[arg(long, value_name = "IPCONFIG")]
    pub(crate) ipconfig: Vec<String>,
    /// Port of the clones' SSH server; without it what the variable `ssh_port` says, which is 22 by default
    #[arg(long, value_name = "PORT")]
    pub(crate) ssh_port: Option<u16>,
    /// How long a clone may take to its login, and k3s from there
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    /// How many seconds the verification counts as living when its process gives no sign; until then `gc` leaves its clones alone
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) lease: u64,
}

/// What runs the guests of an emulated cluster.
#[cfg(feature = "emulator")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    /// State machines inside the process: an install takes seconds, and no image comes out
    Simulated,
    /// Real VMs: QEMU processes on this machine
    Qemu,
}

/// Options of the engine qemu.
#[cfg(feature = "emulator")]
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct QemuArgs {
    /// How QEMU runs guests; without it kvm where that works, else tcg, which translates and is some ten times slower
    #[arg(long, value_name = "HOW")]
    pub(crate) accel: Option<AccelArg>,
}

/// How QEMU runs guests.
#[cfg(feature = "emulator")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccelArg {
    /// By the processor itself, through /dev/kvm
    Kvm,
    /// Translated by QEMU
    Tcg,
}

/// Options of the emulator.
#[cfg(feature = "emulator")]
#[derive(Debug, Args)]
pub(crate) struct EmulatorArgs {
    /// Address to serve on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8006")]
    pub(crate) listen: std::net::SocketAddr,
    /// What runs the guests
    #[arg(long, value_name = "ENGINE", default_value = "simulated")]
    pub(crate) engine: EngineArg,
    #[command(flatten)]
    pub(crate) qemu: QemuArgs,
    /// Port at the guests' addresses that leads to their SSH; without it a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) guest_ssh_port: u16,
    /// Keep VMs, storages and the certificate in this folder; without it they end with the command
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Number of nodes (the names are pve, pve2, pve3, ...) or their names, separated by commas
    #[arg(long, value_name = "NODES", default_value = "1", value_parser = nodes)]
    pub(crate) nodes: Nodes,
    /// One more storage on every node, as NAME:dir, NAME:lvmthin or NAME:dir:shared; can be repeated
    #[arg(long = "storage", value_name = "STORAGE")]
    pub(crate) storages: Vec<pve_emulator::StorageSpec>,
    /// What goes wrong, as TOML; SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
    /// Version of Proxmox VE to answer as
    #[arg(long, value_name = "VERSION")]
    pub(crate) pve_version: Option<String>,
    /// How many times faster than real simulated guests and tasks run; 0 means without any delay
    #[arg(long, value_name = "FACTOR", default_value_t = 60.0, value_parser = time_scale)]
    pub(crate) time_scale: f64,
}

/// The names of an emulator's nodes.
#[cfg(feature = "emulator")]
#[derive(Clone, Debug)]
pub(crate) struct Nodes(pub(crate) Vec<String>);

#[cfg(feature = "emulator")]
fn nodes(text: &str) -> Result<Nodes, String> {
    match text.parse::<usize>() {
        Ok(count @ 1..=32) => Ok(Nodes(pve_emulator::node_names(count))),
        Ok(_) => Err("1 to 32 nodes are possible".to_owned()),
        Err(_) => Ok(Nodes(text.split(',').map(|name| name.trim().to_owned()).collect())),
    }
}

#[cfg(feature = "emulator")]
fn time_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale.is_finite() && scale >= 0.0 => Ok(scale),
        _ => Err("a number from 0 up is wanted: 60 is sixty times faster than real, 0 is without any delay".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
