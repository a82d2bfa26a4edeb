# The seed's kind of build, for Packer 1.6: kickstart over HTTP, a typed boot command, provisioning by SSH.

variable "proxmox_url" {
  type = string
}

variable "proxmox_username" {
  type = string
}

variable "proxmox_password" {
  type      = string
  sensitive = true
}

variable "ssh_host" {
  type = string
}

variable "ssh_port" {
  type = number
}

variable "vm_id" {
  type    = number
  default = 9000
}

variable "alma_iso_url" {
  type    = string
  default = "local:iso/AlmaLinux-9.3-x86_64-minimal.iso"
}

variable "unmount_iso" {
  type    = bool
  default = false
}

variable "k3s_version" {
  type    = string
  default = "v1.29.0+k3s1"
}

variable "image_version" {
  type    = string
  default = "alma9-k3-node-amd64-v1.29.0-v1"
}

variable "last_script" {
  type    = string
  default = "scripts/k3s-install.sh"
}

source "proxmox-iso" "alma9-k3s" {
  proxmox_url = var.proxmox_url
  username    = var.proxmox_username
  password    = var.proxmox_password
  node        = "pve"

  vm_id                = var.vm_id
  vm_name              = "packer-build"
  template_name        = var.image_version
  template_description = "k3s ${var.k3s_version}, made by Packer"

  iso_file    = var.alma_iso_url
  unmount_iso = var.unmount_iso

  os              = "l26"
  cores           = 2
  memory          = 4096
  cpu_type        = "x86-64-v2-AES"
  scsi_controller = "virtio-scsi-pci"
  qemu_agent      = true

  disks {
    type              = "scsi"
    disk_size         = "32G"
    format            = "raw"
    storage_pool      = "local-lvm"
    storage_pool_type = "lvm-thin"
  }

  network_adapters {
    model  = "virtio"
    bridge = "vmbr0"
  }

  http_directory = "http"
  boot_wait      = "1s"
  boot_command   = ["<up><tab> inst.text inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.cfg<enter>"]

  ssh_host     = var.ssh_host
  ssh_port     = var.ssh_port
  ssh_username = "root"
  ssh_password = "strangers"
  ssh_timeout  = "5m"
}

build {
  sources = ["source.proxmox-iso.alma9-k3s"]

  provisioner "shell" {
    inline = ["echo provisioning begins"]
  }

  provisioner "file" {
    source      = "files/config.yaml"
    destination = "/etc/rancher/config.yaml"
  }

  provisioner "shell" {
    environment_vars = ["K3S_VERSION=${var.k3s_version}"]
    scripts          = ["scripts/os-update.sh", var.last_script]
  }
}
