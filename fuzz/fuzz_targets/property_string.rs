//! Property strings, as the client and as the emulator reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    proxmox_client::fuzzing::property_string(data);
    pve_emulator::fuzzing::property_string(data);
});
