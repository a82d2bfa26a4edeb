//! Kickstarts, as the checks and as the simulated installer read them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let checks = image_build::fuzzing::kickstart(data);
    // The reader behind the checks goes on where the installer would stop.
    if let Some(installer) = pve_emulator::fuzzing::kickstart(data) {
        assert_eq!(checks, installer, "the two readers differ");
    }
});
