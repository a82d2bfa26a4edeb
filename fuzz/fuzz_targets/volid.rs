//! Volume ids, as the client and as the emulator reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    proxmox_client::fuzzing::volid(data);
    pve_emulator::fuzzing::volid(data);
});
