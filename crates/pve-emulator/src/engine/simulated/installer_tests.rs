//! Whole guests.
