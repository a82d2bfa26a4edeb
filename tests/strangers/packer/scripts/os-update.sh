#!/usr/bin/env bash
# Stands for the first script of such a build: a package more.
set -euo pipefail
dnf -y install tar
