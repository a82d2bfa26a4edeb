//! The command `k3simage`: everything is in the library, which the Python wheel carries too.

fn main() {
    std::process::exit(k3simage_cli::run(std::env::args_os()));
}
