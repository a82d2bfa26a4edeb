//! The emulator's reader of ISO 9660 volumes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pve_emulator::fuzzing::iso(data);
});
