# How far this clone's boot is: three units, the system as a whole, and cloud-init, as lines NAME=VALUE.
for unit in k3simage-firstboot k3s k3s-agent; do
    printf '%s=%s\n' "$unit" "$(systemctl is-active "$unit.service" 2>/dev/null)"
done
printf 'system=%s\n' "$(systemctl is-system-running 2>/dev/null)"
printf 'cloud-init=%s\n' "$(cloud-init status 2>/dev/null | sed -n 's/^status: //p')"
if [ -f /etc/k3simage/image.env ]; then printf 'image=yes\n'; fi
