//! The simulated guest's shell: grammar, patterns, effects of scripts.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pve_emulator::fuzzing::shell(data);
});
