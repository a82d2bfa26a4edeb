//! What is wrong in a folder is told with its place, and with what to write instead; what is only odd is a warning.

use super::*;

/// One thing wrong at a time: what is said about it.
#[test]
fn bad_input_says_where_and_what_instead() {
    let mut shown = String::new();
    let mut number = 0;
    let mut case = |folder: Folder, inputs: &Inputs| {
        number += 1;
        assert!(folder.load(inputs).is_err(), "case {number} was taken");
        shown.push_str(&folder.refused(inputs));
        shown.push_str("\n----\n");
    };
    let none = Inputs::new();
    case(Folder::new().edit(VALUES, "\"none\"", "\"sha256:abc123...\""), &none);
    case(Folder::new().edit(VALUES, "v1.29.0+k3s1", "v1.29.0"), &none);
    case(Folder::new(), &none.clone().var("k3s_version", "v1.31.3+k3s1"));
    case(Folder::new().edit(VALUES, "AlmaLinux-9.3", "AlmaLinux-8.9"), &none);
    case(Folder::new(), &none.clone().environment("PKR_VAR_vm_cpu_type", "kvm64"));
    case(Folder::new().edit(KICKSTART, "\nqemu-guest-agent\n", "\n"), &none);
    case(
        Folder::new().edit(VALUES, "https://10.23.45.10:8006/api2/json", "10.23.45.10:8006"),
        &none,
    );
    case(
        Folder::new()
            .edit(
                VALUES,
                "local:iso/AlmaLinux-9.3-x86_64-minimal.iso",
                "http://example.com/AlmaLinux-9.3-x86_64-dvd.iso",
            )
            .edit(VALUES, "\"none\"", "\"\""),
        &none,
    );
    case(Folder::new().edit(VALUES, "9000", "99"), &none);
    case(Folder::new().edit(VALUES, "9000", "\"many\""), &none);
    case(
        Folder::new().write(
            "x.auto.pkrvars.hcl",
            "tags = [\"K3s\", \"a b\"]\nvm_disk_size = \"32 apples\"\n",
        ),
        &none,
    );
    case(
        Folder::new().write("x.auto.pkrvars.hcl", "vm_cores = 2\nvm_cores = 4\n"),
        &none,
    );
    case(Folder::new().write("x.auto.pkrvars.hcl", "vm_cores = \n"), &none);
    case(Folder::new(), &none.clone().var("k3s_verison", "v1.29.0+k3s1"));
    case(
        Folder::new().write(
            "x.pkr.hcl",
            "variable \"a\" {\n  type = strng\n}\nvariable \"vm_id\" {}\n",
        ),
        &none,
    );
    case(Folder::new().edit(KICKSTART, "reboot --eject\n", "\n"), &none);
    case(
        Folder::new().write("scripts/os-update.sh", "#!/bin/sh\r\ntrue\r\n"),
        &none,
    );
    case(
        Folder::new(),
        &none.clone().var("scripts", "[\"k3s-instal.sh\", \"../x.sh\"]"),
    );
    case(
        Folder::new().write("x.auto.pkrvars.hcl", "boot_command = [\"<up><wiat5><enter>\"]\n"),
        &none,
    );
    insta::assert_snapshot!(shown, @r#"
    error: alma_iso_checksum: `sha256:abc123...` is no checksum: it is a placeholder
      --> variables.auto.pkrvars.hcl:12:21
       |
    12 | alma_iso_checksum = "sha256:abc123..."
       |                     ^^^^^^^^^^^^^^^^^^
       = help: write sha256: and the 64 digits from the CHECKSUM file beside the ISO, file:https://... with the address of such a file, or "none", which leaves the ISO unchecked
    ----
    error: k3s_version: `v1.29.0` names no k3s release: it lacks k3s's own counter `+k3sN`, so it could mean several releases
      --> variables.auto.pkrvars.hcl:15:17
       |
    15 | k3s_version   = "v1.29.0"
       |                 ^^^^^^^^^
       = help: did you mean v1.29.0+k3s1?
    ----
    error: image_version: `alma9-k3-node-amd64-v1.29.0-v1` says k3s v1.29.0, but k3s_version is v1.31.3+k3s1
      --> variables.auto.pkrvars.hcl:16:17
       |
    16 | image_version = "alma9-k3-node-amd64-v1.29.0-v1"
       |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = help: write alma9-k3-node-amd64-v1.31.3-v1, or leave image_version out: the next free name is then taken
    ----
    error: image_version: `alma9-k3-node-amd64-v1.29.0-v1` says AlmaLinux 9, but the ISO is AlmaLinux-8.9-x86_64-minimal.iso
      --> variables.auto.pkrvars.hcl:16:17
       |
    16 | image_version = "alma9-k3-node-amd64-v1.29.0-v1"
       |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = help: name and ISO must be of one release
    ----
    error: vm_cpu_type: `kvm64` cannot run AlmaLinux 9, which needs x86-64-v2: its kernel would panic (set by PKR_VAR_vm_cpu_type)
     = help: write x86-64-v2-AES or host
    ----
    error: kickstart: the guest's address is to come from the guest agent, but the kickstart installs none
      --> http/ks.cfg.j2:37:1
       |
    37 | %packages --exclude-weakdeps
       | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = help: add qemu-guest-agent there, or set ssh_host
    ----
    error: proxmox_url: `10.23.45.10:8006` has no scheme
     --> variables.auto.pkrvars.hcl:4:20
      |
    4 | proxmox_url      = "10.23.45.10:8006"
      |                    ^^^^^^^^^^^^^^^^^^
      = help: write https://10.23.45.10:8006
    ----
    error: alma_iso_checksum: the ISO comes over http://, where the mirror's own list of checksums proves nothing
      --> variables.auto.pkrvars.hcl:12:21
       |
    12 | alma_iso_checksum = ""
       |                     ^^
       = help: write sha256: and the 64 digits from the CHECKSUM file beside the ISO, file:https://... with the address of such a file, or "none", which leaves the ISO unchecked
    ----
    error: vm_id: 99 is no VM id
      --> variables.auto.pkrvars.hcl:19:19
       |
    19 | vm_id           = 99
       |                   ^^
       = help: write 100 to 999999999, or 0 for the next free one
    ----
    error: vm_id: this is not of its type
      --> variables.auto.pkrvars.hcl:19:19
       |
    19 | vm_id           = "many"
       |                   ^^^^^^
       = help: write a number, as in 9000
    ----
    error: vm_disk_size: `32 apples` is no disk size
     --> x.auto.pkrvars.hcl:2:16
      |
    2 | vm_disk_size = "32 apples"
      |                ^^^^^^^^^^^
      = help: write whole GiB or TiB, as in 32G or 1T: Proxmox VE allocates in GiB

    error: tags: `K3s` has upper-case letters, which PVE would change
     --> x.auto.pkrvars.hcl:1:8
      |
    1 | tags = ["K3s", "a b"]
      |        ^^^^^^^^^^^^^^
      = help: lower-case letters, digits, `-`, `_`, `.` and `+`, beginning with a letter, a digit or `_`

    error: tags: `a b` holds a character that tags cannot have
     --> x.auto.pkrvars.hcl:1:8
      |
    1 | tags = ["K3s", "a b"]
      |        ^^^^^^^^^^^^^^
      = help: lower-case letters, digits, `-`, `_`, `.` and `+`, beginning with a letter, a digit or `_`
    ----
    error: this is set twice in one file
     --> x.auto.pkrvars.hcl:2:1
      |
    2 | vm_cores = 4
      | ^
    ----
    error: this is no HCL: invalid expression; expected `"`, `[`, `{`, `-`, `!`, `(`, `_`, `<`, letter or digit
     --> x.auto.pkrvars.hcl:1:12
      |
    1 | vm_cores = 
      |            ^
    ----
    error: k3s_verison: -var sets a variable that is not known
     = help: did you mean k3s_version, or k3s_role?
    ----
    error: a: this is no type
     --> x.pkr.hcl:2:10
      |
    2 |   type = strng
      |          ^^^^^
      = help: write string, number, bool, list(string), map(string) or any

    error: vm_id: it is declared twice
     --> x.pkr.hcl:4:10
      |
    4 | variable "vm_id" {}
      |          ^^^^^^^
      = help: the first is at variables.pkr.hcl:118

    error: a: it is not set and has no default
     --> x.pkr.hcl:1:10
      |
    1 | variable "a" {
      |          ^^^
      = help: write it into a *.auto.pkrvars.hcl file, or export PKR_VAR_a
    ----
    error: kickstart: the installation would never end: neither reboot nor poweroff stands in it
     --> http/ks.cfg.j2:1:1
      = help: write reboot --eject
    ----
    error: os-update.sh: its lines end with CR LF, which no shell understands
     = help: convert it: sed -i 's/\r$//' os-update.sh
    ----
    error: scripts: scripts/k3s-instal.sh does not exist (set by -var)
     = help: did you mean k3s-install.sh?

    error: scripts: scripts/../x.sh: it leads out of the template folder (set by -var)
     = help: keep the scripts in the folder itself

    warning: scripts/guest-agent.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away

    warning: scripts/hardening-oscap.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away

    warning: scripts/k3s-install.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away

    warning: scripts/os-update.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away
    ----
    error: boot_command: `<wiat5>` is no key
     --> x.auto.pkrvars.hcl:1:16
      |
    1 | boot_command = ["<up><wiat5><enter>"]
      |                ^^^^^^^^^^^^^^^^^^^^^^
      = help: did you mean <wait>?
    ----
    "#);
}

#[test]
fn oddities_are_warnings() {
    let folder = Folder::new()
        .write(
            "packer.pkr.hcl",
            "packer {\n}\nsource \"proxmox-iso\" \"alma\" {\n}\nbuild {\n}\n",
        )
        .write(
            "x.auto.pkrvars.hcl",
            "vm_memroy = 1\nproxmox_token = \"00000000-0000-0000-0000-000000000002\"\n",
        )
        .write("scripts/extra.sh", "#!/bin/sh\n");
    let loaded = folder
        .load(&Inputs::new().environment("PKR_VAR_vm_brigde", "x"))
        .unwrap();
    let shown = loaded
        .warnings
        .to_string()
        .replace(&format!("{}/", folder.0.path().display()), "");
    insta::assert_snapshot!(shown, @r#"
    warning: this `packer` block is not read
     --> packer.pkr.hcl:1:1
      |
    1 | packer {
      | ^^^^^^
      = help: k3simage builds its own steps from the variables, http/ and scripts/

    warning: this `source` block is not read
     --> packer.pkr.hcl:3:1
      |
    3 | source "proxmox-iso" "alma" {
      | ^^^^^^
      = help: k3simage builds its own steps from the variables, http/ and scripts/

    warning: this `build` block is not read
     --> packer.pkr.hcl:5:1
      |
    5 | build {
      | ^^^^^
      = help: k3simage builds its own steps from the variables, http/ and scripts/

    warning: vm_brigde: PKR_VAR_vm_brigde in the environment sets no variable of this folder
     = help: did you mean PKR_VAR_vm_bridge?

    warning: vm_memroy: nothing reads this variable
     --> x.auto.pkrvars.hcl:1:1
      |
    1 | vm_memroy
      | ^^^^^^^^^
      = help: did you mean vm_memory?

    warning: proxmox_token: a secret stands in a file, which is easily committed or copied
     --> x.auto.pkrvars.hcl:2:17
      = help: export PKR_VAR_proxmox_token instead

    warning: scripts/extra.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away
    "#);
    assert!(!shown.contains("000000000002"));
}
