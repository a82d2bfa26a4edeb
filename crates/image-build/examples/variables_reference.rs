//! Prints the reference page of all variables: `docs/reference/variables.md`.

#![expect(clippy::print_stdout, reason = "an example that prints a page")]

fn main() {
    print!("{}", image_build::variables::reference());
}
