//! UPIDs, as the client and as the emulator reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let client = proxmox_client::fuzzing::upid(data);
    let emulator = pve_emulator::fuzzing::upid(data);
    // Only its limit of 512 bytes and its characters make the client stricter.
    assert!(emulator || !client, "the client takes what the emulator refuses");
});
