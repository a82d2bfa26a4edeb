# What can be set for this image, as Packer declares it. Values: defaults here, then PKR_VAR_name, then *.auto.pkrvars.hcl in
# the order of their names, then -var and -var-file in the order given. The last one wins.

# Connection ----------------------------------------------------------------------------------------------------------

variable "proxmox_url" {
  type        = string
  description = "Proxmox VE API, such as https://10.23.45.10:8006/api2/json"
}

variable "proxmox_username" {
  type        = string
  description = "API token id (packer@pve!packer-token), or a user (root@pam) together with proxmox_password"
}

variable "proxmox_token" {
  type        = string
  default     = ""
  sensitive   = true
  description = "Secret of the API token; set it by PKR_VAR_proxmox_token, never in a file"
}

variable "proxmox_password" {
  type        = string
  default     = ""
  sensitive   = true
  description = "Password of proxmox_username, when that is a user and no token"
}

variable "proxmox_node" {
  type        = string
  description = "Node to build on"
}

variable "proxmox_ca_file" {
  type        = string
  default     = ""
  description = "PEM file of the CA that signed the node's certificate, such as a copy of /etc/pve/pve-root-ca.pem"
}

variable "proxmox_fingerprint" {
  type        = string
  default     = ""
  description = "SHA-256 fingerprint of the node's certificate; if given, it alone decides"
}

variable "proxmox_skip_tls_verify" {
  type        = bool
  default     = false
  description = "Takes any certificate. Give proxmox_fingerprint instead"
}

# Image ---------------------------------------------------------------------------------------------------------------

variable "image_version" {
  type        = string
  default     = "alma9-k3-node-amd64-v1.28.5-v1"
  description = "Name of the template: alma{version}-k3-node-{arch}-{k3s-version}-v{distribution-release}"
}

variable "k3s_version" {
  type        = string
  default     = "v1.28.5+k3s1"
  description = "k3s release, with its +k3sN"
}

variable "k3s_role" {
  type        = string
  default     = "server"
  description = "What a clone becomes that is told nothing at its first boot: server, agent or none"
}

variable "k3s_mirror_url" {
  type        = string
  default     = ""
  description = "Mirror of the k3s releases, laid out as MIRROR/VERSION/FILE; empty takes the project's own"
}

variable "hardening_oscap" {
  type        = bool
  default     = false
  description = "Checks the image with OpenSCAP and keeps the report in it"
}

variable "tags" {
  type        = list(string)
  default     = ["k3s", "alma9"]
  description = "Tags of the template, beside the build's own"
}

# Installation medium --------------------------------------------------------------------------------------------------

variable "alma_iso_url" {
  type        = string
  description = "AlmaLinux 9 ISO: a volume on the node (local:iso/NAME.iso), an https:// address, or a local file"
}

variable "alma_iso_checksum" {
  type        = string
  default     = "none"
  description = "sha256:HEX of the ISO, or file: and a list's address or path; auto reads CHECKSUM beside an https:// ISO; none for a volume"
}

variable "alma_iso_storage_pool" {
  type        = string
  default     = "local"
  description = "Storage for ISO files: the one that is fetched or uploaded, and the build's own small one"
}

variable "alma_mirror_url" {
  type        = string
  default     = ""
  description = "Mirror of AlmaLinux, the folder that holds BaseOS and AppStream; empty takes the project's own list of mirrors"
}

# Virtual machine ------------------------------------------------------------------------------------------------------

variable "vm_id" {
  type        = number
  default     = 0
  description = "vmid of the template; 0 takes the next free one"
}

variable "vm_cores" {
  type        = number
  default     = 2
  description = "CPU cores of the build VM"
}

variable "vm_memory" {
  type        = number
  default     = 4096
  description = "Memory of the build VM, in MiB"
}

variable "vm_disk_size" {
  type        = string
  default     = "32G"
  description = "Size of the disk"
}

variable "vm_storage_pool" {
  type        = string
  default     = "local-lvm"
  description = "Storage for the disk"
}

variable "vm_bridge" {
  type        = string
  default     = "vmbr0"
  description = "Bridge of the network device; the installer needs DHCP and the AlmaLinux mirrors there"
}

variable "vm_cpu_type" {
  type        = string
  default     = "x86-64-v2-AES"
  description = "CPU type. AlmaLinux 9 needs x86-64-v2, so kvm64 and qemu64 cannot boot it"
}

variable "vm_bios" {
  type        = string
  default     = "seabios"
  description = "Firmware: seabios or ovmf"
}

# Way into the guest ---------------------------------------------------------------------------------------------------

variable "communicator" {
  type        = string
  default     = "auto"
  description = "ssh, agent, or auto"
}

variable "ssh_username" {
  type        = string
  default     = "root"
  description = "User to log in as"
}

variable "ssh_password" {
  type        = string
  default     = ""
  sensitive   = true
  description = "Password, if the kickstart sets one; empty logs in with a key made for this one build"
}

variable "ssh_timeout" {
  type        = string
  default     = "30m"
  description = "How long to wait for SSH after the installed system has started"
}

variable "http_bind_address" {
  type        = string
  default     = "0.0.0.0"
  description = "Where the kickstart is served from, if it is delivered by HTTP"
}

variable "http_port_min" {
  type        = number
  default     = 8000
  description = "First port to try for it"
}

variable "http_port_max" {
  type        = number
  default     = 9000
  description = "Last port to try for it"
}
