//! A VM's consoles over the API port: serial ports as text, the screen as a picture.

pub(crate) mod rfb;
pub(crate) mod screen;
pub(crate) mod serial;
