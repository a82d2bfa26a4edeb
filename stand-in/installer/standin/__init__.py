"""The installer of the stand-in medium: carries out a kickstart as AlmaLinux 9's installer does, on Debian packages."""
