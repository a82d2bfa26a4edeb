//! The emulator's receiver of uploads, cut into chunks of any size.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pve_emulator::fuzzing::multipart(data);
});
