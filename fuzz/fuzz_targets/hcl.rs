//! Declarations and values of variables, in HCL and JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    image_build::fuzzing::hcl(data);
});
