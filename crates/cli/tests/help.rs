//! What `help` prints, letter by letter, and what wrong options get.

mod common;

use common::run;

#[test]
fn help_lists_commands_and_exit_codes() {
    let ended = run(&["help"]).expect(0, &[]);
    insta::assert_snapshot!(ended.out, @"");
}

#[test]
fn help_of_build() {
    let ended = run(&["help", "build"]).expect(0, &[]);
    insta::assert_snapshot!(ended.out, @"");
}

#[test]
fn help_of_emulator() {
    let ended = run(&["emulator", "--help"]).expect(0, &[]);
    insta::assert_snapshot!(ended.out, @"");
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
