// What both clients' lives need: where the emulator is (from the environment), waiting, and a last word for the test.

export const { PVE_HOST, PVE_USER, PVE_REALM, PVE_PASSWORD, PVE_TOKEN_ID, PVE_TOKEN_SECRET, MEDIUM_URL, MEDIUM_SHA256, INSTALLER } = process.env;
export const PVE_PORT = Number(process.env.PVE_PORT);

/** Asks until there is an answer; the test's own limit ends what never answers. */
export async function until(ask) {
  for (;;) {
    const found = await ask();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The VM that both make. */
export function machine(vmid, medium) {
  return {
    vmid,
    name: "npm-stranger",
    memory: 2048,
    cores: 2,
    cpu: "x86-64-v2-AES",
    agent: "1",
    ostype: "l26",
    scsihw: "virtio-scsi-single",
    scsi0: "local-lvm:8",
    net0: "virtio,bridge=vmbr0",
    ide2: `${INSTALLER},media=cdrom`,
    sata0: `${medium},media=cdrom`,
    boot: "order=scsi0;ide2",
    description: "made by Node: ä <&> =",
    onboot: true,
  };
}

/** Says what the test is to compare with what an observer sees. */
export function report(told) {
  console.log(JSON.stringify(told));
}
