//! Boot commands, and whether the emulator knows every key that they press.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for key in image_build::fuzzing::boot_command(data) {
        assert!(pve_emulator::fuzzing::is_key(&key), "{key:?} is no key");
    }
});
