#!/usr/bin/env bash
# Makes boot.bin, the boot sector that the tests of the engine qemu start, from boot.s. Needs binutils.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
as --32 boot.s -o "$work/boot.o"
ld -m elf_i386 -Ttext 0x7c00 --oformat binary "$work/boot.o" -o boot.bin
