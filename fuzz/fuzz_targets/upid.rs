//! UPIDs, as the client and as the emulator reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    proxmox_client::fuzzing::upid(data);
    pve_emulator::fuzzing::upid(data);
});
