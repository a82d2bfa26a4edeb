//! The command `k3simage`.

fn main() {}
