"""Takes one collection out of the wheel of the package `ansible`, which carries a hundred of them: the wheel's path, then the folder."""

import sys
import zipfile

COLLECTION = "ansible_collections/community/proxmox/"

with zipfile.ZipFile(sys.argv[1]) as wheel:
    members = [name for name in wheel.namelist() if name.startswith(COLLECTION)]
    if not members:
        sys.exit(f"{sys.argv[1]} holds no {COLLECTION}")
    wheel.extractall(sys.argv[2], members)
