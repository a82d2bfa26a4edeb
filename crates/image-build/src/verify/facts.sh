# What this clone is, as lines NAME=VALUE. Secrets leave the guest as hashes under the salt in $1 only.
salt=$1
say() { printf '%s=%s\n' "$1" "$2"; }
digest() { printf '%s%s' "$salt" "$1" | sha256sum | cut -d' ' -f1; }
value() { sed -n "s/^$2=//p" "$1" 2>/dev/null | tr -d '"' | tail -n 1; }

say hostname "$(hostname)"
say machine_id "$(cat /etc/machine-id 2>/dev/null)"
say boot_id "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
say os "$(value /etc/os-release PRETTY_NAME)"
say selinux "$(getenforce 2>/dev/null)"
say selinux_config "$(value /etc/selinux/config SELINUX)"
say cloud_init "$(cloud-init status 2>/dev/null | sed -n 's/^status: //p')"
say failed "$(systemctl list-units --state=failed --plain --no-legend 2>/dev/null | cut -d' ' -f1 | tr '\n' ' ')"
for unit in sshd qemu-guest-agent k3simage-firstboot k3s k3s-agent; do
    say "unit $unit" "$(systemctl is-active "$unit.service" 2>/dev/null)"
done
for key in /etc/ssh/ssh_host_*_key.pub; do
    if [ -f "$key" ]; then say host_key "$(cut -d' ' -f1,2 "$key")"; fi
done

# Users that can log in with a password, or without one.
for user in $(sed -n -E 's/^([^:]+):([^!*:][^:]*)?:.*/\1/p' /etc/shadow); do say password "$user"; done
for home in /root /home/*; do
    file=$home/.ssh/authorized_keys
    if [ -s "$file" ]; then
        while read -r line; do
            if [ -n "$line" ]; then say "authorized $home" "$line"; fi
        done <"$file"
    fi
done

for file in /etc/rancher/node/password /var/lib/rancher/k3s/server/cred/passwd /var/lib/rancher/k3s/server/tls/*.key \
    /var/lib/rancher/k3s/server/tls/*-ca.crt /var/lib/NetworkManager/secret_key /var/lib/systemd/credential.secret; do
    if [ -s "$file" ]; then say "file $file" "$(digest "$(base64 <"$file")")"; fi
done
# Of a token the secret part: what stands before it tells the certificate authority.
for file in /var/lib/rancher/k3s/server/token /var/lib/rancher/k3s/server/agent-token; do
    if [ -s "$file" ]; then say "token $file" "$(digest "$(sed 's/.*://' "$file")")"; fi
done
for file in /etc/rancher/k3s/config.yaml /etc/rancher/k3s/config.yaml.d/*.yaml; do
    if [ -s "$file" ]; then
        token=$(sed -n -E 's/^(agent-)?token: *//p' "$file" | tr -d "\"' " | sed 's/.*://' | tail -n 1)
        if [ -n "$token" ]; then say "token $file" "$(digest "$token")"; fi
    fi
done
token=$(value /etc/k3simage/role.env K3S_TOKEN | sed 's/.*://')
if [ -n "$token" ]; then say "token /etc/k3simage/role.env" "$(digest "$token")"; fi

if [ -f /etc/k3simage/image.env ]; then
    say image_role "$(value /etc/k3simage/image.env K3S_ROLE)"
    say k3s_version "$(value /etc/k3simage/image.env K3S_VERSION)"
fi
say decided "$(cat /var/lib/k3simage/firstboot.done 2>/dev/null)"
say told_url "$(value /etc/k3simage/k3s.env K3S_URL)"
token=$(value /etc/k3simage/k3s.env K3S_TOKEN)
if [ -n "$token" ]; then say told_token "$(digest "$token")"; fi
