"""Reads the disk image of a sealed template from outside and lists the identities that it still holds."""
