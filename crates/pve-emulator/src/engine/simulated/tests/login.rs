//! Who gets in, and what sessions can do.
