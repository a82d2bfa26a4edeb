//! What `help` prints, letter by letter, and what wrong options get.

mod common;

use common::run;

/// Without the blanks that clap leaves at the ends of lines.
fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn help_lists_commands_and_exit_codes() {
    let ended = run(&["help"]).expect(0, &[]);
    insta::assert_snapshot!(trimmed(&ended.out), @r#"
    Golden AlmaLinux 9 images with k3s inside, as templates on Proxmox VE

    Usage: k3simage [OPTIONS] <COMMAND>

    Commands:
      init      Write a template folder, ready to edit
      validate  Check a template folder: variables, kickstart, scripts; in seconds, without network
      plan      Check what a build needs on the cluster: privileges, storages, node, ISO, name, vmid;
                changes nothing
      build     Build the image and leave it as a template
      resume    Go on with a build whose builder died, from its last completed step
      list      List the templates on the cluster that k3simage made
      console   Show a VM's serial console on this terminal, or save a picture of its screen
      verify    Boot two clones of a template and prove that they share no identity and are well; they
                are removed again
      gc        List what dead builds and verifications left on the cluster; with --yes, remove it
      emulator  Serve an emulated Proxmox VE on this machine, with simulated guests or real ones
      help      Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Output:
          --json
              Print one JSON object a line (events, findings, results) instead of text

      -v, --verbose...
              Tell more: -v also the guest's output, -vv also the API requests

      -q, --quiet
              Tell results and errors only

          --color <WHEN>
              When to use colours; NO_COLOR is honoured

              Possible values:
              - auto:   On a terminal, unless NO_COLOR is set
              - always: Always
              - never:  Never

              [default: auto]

          --log-file <FILE>
              Append everything, with the guest's output and the API requests, to this file

    Exit codes:
      0    done
      1    failed on the way; what was created is removed again, but for a complete image
      2    bad input: options, variables, template folder, or what the cluster has; nothing was created
      3    the cluster could not be reached; nothing was created, the same command may work later
      129  ended by SIGHUP, a closed terminal; a build is undone first, but for a complete image
      130  ended by SIGINT (Ctrl-C); the same, and a second signal stops waiting for that
      143  ended by SIGTERM; the same
    "#);
}

#[test]
fn help_of_build() {
    let ended = run(&["help", "build"]).expect(0, &[]);
    insta::assert_snapshot!(trimmed(&ended.out), @r#"
    Build the image and leave it as a template

    Usage: k3simage build [OPTIONS] <DIR>

    Arguments:
      <DIR>
              The template folder

    Options:
          --emulator[=<ENGINE>]
              Build on the embedded Proxmox VE emulator; no cluster and no token are needed. The guest
              is simulated, or a real VM with QEMU of this machine

              Possible values:
              - simulated: State machines inside the process: an install takes seconds, and no image
                comes out
              - qemu:      Real VMs: QEMU processes on this machine

          --accel <HOW>
              How QEMU runs guests; without it kvm where that works, else tcg, which translates and is
              some ten times slower

              Possible values:
              - kvm: By the processor itself, through /dev/kvm
              - tcg: Translated by QEMU

          --data <DIR>
              Keep the emulator's VMs and storages in this folder; without it they end with the command

          --manifest <PATH>
              Add the build to this manifest, in Packer's shape

          --on-error <WHAT>
              What becomes of the VM when the build fails; stands above the variable on_error

              Possible values:
              - cleanup: Remove all that the build made
              - keep:    Leave it as it is, for a look
              - ask:     Ask on the terminal

          --lease <SECONDS>
              How many seconds the build counts as living when its process gives no sign; until then no
              one may resume or collect it

              [default: 300]

      -h, --help
              Print help (see a summary with '-h')

    Variables:
          --var <NAME=VALUE>
              Set a variable, also spelled -var as Packer does; of -var and -var-file the last one wins

          --var-file <FILE>
              Read variables from a file (*.pkrvars.hcl or *.pkrvars.json), also spelled -var-file

    Replacing a template:
          --replace[=<OLD>]
              Build beside the template that has this name, and take its place once the new one is
              finished and verified; the old one is kept under another name, or deleted

              Possible values:
              - retire: Keep it under another name, without the tag of images
              - delete: Delete it at the end, unless linked clones stand on it

          --no-verify
              Replace without booting two clones of the new template first

          --ipconfig <IPCONFIG>
              Address of a clone as cloud-init is told it, such as ip=10.0.0.5/24,gw=10.0.0.1; given
              twice, for networks without DHCP

          --verify-timeout <SECONDS>
              How long a clone may take to its login, and k3s from there

    Output:
          --json
              Print one JSON object a line (events, findings, results) instead of text

      -v, --verbose...
              Tell more: -v also the guest's output, -vv also the API requests

      -q, --quiet
              Tell results and errors only

          --color <WHEN>
              When to use colours; NO_COLOR is honoured

              Possible values:
              - auto:   On a terminal, unless NO_COLOR is set
              - always: Always
              - never:  Never

              [default: auto]

          --log-file <FILE>
              Append everything, with the guest's output and the API requests, to this file
    "#);
}

#[test]
fn help_of_emulator() {
    let ended = run(&["emulator", "--help"]).expect(0, &[]);
    insta::assert_snapshot!(trimmed(&ended.out), @r#"
    Serve an emulated Proxmox VE on this machine, with simulated guests or real ones

    Usage: k3simage emulator [OPTIONS]

    Options:
          --listen <ADDRESS>
              Address to serve on; port 0 takes a free one

              [default: 127.0.0.1:8006]

          --engine <ENGINE>
              What runs the guests

              Possible values:
              - simulated: State machines inside the process: an install takes seconds, and no image
                comes out
              - qemu:      Real VMs: QEMU processes on this machine

              [default: simulated]

          --accel <HOW>
              How QEMU runs guests; without it kvm where that works, else tcg, which translates and is
              some ten times slower

              Possible values:
              - kvm: By the processor itself, through /dev/kvm
              - tcg: Translated by QEMU

          --guest-ssh-port <PORT>
              Port at the guests' addresses that leads to their SSH; without it a free one

          --data <DIR>
              Keep VMs, storages and the certificate in this folder; without it they end with the
              command

          --nodes <NODES>
              Number of nodes (the names are pve, pve2, pve3, ...) or their names, separated by commas

              [default: 1]

          --storage <STORAGE>
              One more storage on every node, as NAME:dir, NAME:lvmthin or NAME:dir:shared; can be
              repeated

          --faults <FILE>
              What goes wrong, as TOML; SIGHUP reads it again

          --pve-version <VERSION>
              Version of Proxmox VE to answer as

          --time-scale <FACTOR>
              How many times faster than real simulated guests and tasks run; 0 means without any delay

              [default: 60]

      -h, --help
              Print help (see a summary with '-h')

    Output:
          --json
              Print one JSON object a line (events, findings, results) instead of text

      -v, --verbose...
              Tell more: -v also the guest's output, -vv also the API requests

      -q, --quiet
              Tell results and errors only

          --color <WHEN>
              When to use colours; NO_COLOR is honoured

              Possible values:
              - auto:   On a terminal, unless NO_COLOR is set
              - always: Always
              - never:  Never

              [default: auto]

          --log-file <FILE>
              Append everything, with the guest's output and the API requests, to this file
    "#);
}

#[test]
fn wrong_options_are_bad_input() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["build"],
        &["build", "x", "--force"],
        &["build", "x", "--replace"],
        &["build", "x", "--on-error", "panic"],
        &["validate", "x", "-var"],
        &["verify"],
        &["verify", "x", "--storage", "local"],
        &["validate", "x", "-q", "-v"],
        &["emulator", "--time-scale", "fast"],
        &["emulator", "--listen", "8006"],
    ] {
        let ended = run(args).expect(2, &[]);
        assert_eq!(ended.out, "", "{args:?}");
        assert!(
            ended.err.contains("Usage: ") || ended.err.contains("error: "),
            "{args:?}: {}",
            ended.err
        );
    }
}

#[test]
fn version_is_the_packages() {
    assert_eq!(
        run(&["--version"]).expect(0, &[]).out,
        format!("k3simage {}\n", env!("CARGO_PKG_VERSION"))
    );
}
