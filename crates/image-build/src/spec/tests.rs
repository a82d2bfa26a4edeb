//! Tests of `ImageSpec` as a whole.

use super::*;

#[test]
fn the_preset_is_sound() {
    let spec = ImageSpec::builder().build().unwrap();
    assert_eq!(spec.name.to_string(), "alma9-k3-node-amd64-v1.28.5-v1");
}
