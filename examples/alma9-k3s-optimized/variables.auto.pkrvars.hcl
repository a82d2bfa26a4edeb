# The values of this image. Secrets stay out: export PKR_VAR_proxmox_token instead.

# Proxmox connection
proxmox_url      = "https://10.23.45.10:8006/api2/json"
proxmox_username = "packer@pve!packer-token"
proxmox_node     = "pve"

# ISO configuration
alma_iso_url = "local:iso/AlmaLinux-9.3-x86_64-minimal.iso"
# Proxmox VE cannot tell the checksum of a file that lies on a storage already, so a volume has none to compare with. For an
# https:// address "auto" takes it from the mirror's CHECKSUM file; "sha256:..." with its 64 digits is checked for any ISO.
alma_iso_checksum = "none"

# k3s version
k3s_version   = "v1.29.0+k3s1"
image_version = "alma9-k3-node-amd64-v1.29.0-v1"

# Build configuration
vm_id           = 9000
vm_storage_pool = "local-lvm"
