//! What goes wrong, and how it shows.
