// The package proxmox-api: the API's tree as an object, forms over undici's fetch. By token, or by password with PVE_LOGIN=password.

import proxmoxApi from "proxmox-api";
import {
  MEDIUM_SHA256, MEDIUM_URL, PVE_HOST, PVE_PASSWORD, PVE_PORT, PVE_REALM, PVE_TOKEN_ID, PVE_TOKEN_SECRET, PVE_USER, machine, report, until,
} from "./run.mjs";

const login = process.env.PVE_LOGIN === "password"
  ? { username: `${PVE_USER}@${PVE_REALM}`, password: PVE_PASSWORD }
  : { tokenID: PVE_TOKEN_ID, tokenSecret: PVE_TOKEN_SECRET };
const proxmox = proxmoxApi({ host: PVE_HOST, port: PVE_PORT, ...login });
const node = proxmox.nodes.$("pve");

/** Waits for a task and takes nothing but OK. */
async function done(upid) {
  const status = await until(async () => {
    const now = await node.tasks.$(upid).status.$get();
    return now.status === "stopped" && now;
  });
  if (status.exitstatus !== "OK") throw new Error(`${upid}: ${status.exitstatus}`);
}

/** The text of the error that a call is refused with. */
async function refusal(call) {
  try {
    await call();
  } catch (error) {
    return error.message;
  }
  throw new Error("it was not refused");
}

const version = await proxmox.version.$get();
const meta = await node["query-url-metadata"].$get({ url: MEDIUM_URL });
const storage = node.storage.$("local");
await done(await storage["download-url"].$post({
  content: "iso", filename: "npm.iso", url: MEDIUM_URL, checksum: MEDIUM_SHA256, "checksum-algorithm": "sha256",
}));

const vmid = Number(await proxmox.cluster.nextid.$get());
await done(await node.qemu.$post(machine(vmid, "local:iso/npm.iso")));
const vm = node.qemu.$(vmid);
await done(await vm.status.start.$post());
await until(() => vm.agent.ping.$post().catch(() => null));
const { pid } = await vm.agent.exec.$post({ command: ["cat", "/etc/strangers-were-here"] });
const ran = await until(async () => {
  const status = await vm.agent["exec-status"].$get({ pid });
  return status.exited && status;
});
await vm.config.$put({ delete: "ide2,sata0", tags: "npm,golden" });
await done(await vm.status.shutdown.$post({ timeout: 60 }));
await done(await vm.template.$post());
await done(await vm.clone.$post({ newid: vmid + 1, name: "npm-clone", full: true }));
const errors = {
  missing: await refusal(() => node.qemu.$(999).config.$get()),
  parameter: await refusal(() => node.qemu.$post({ vmid: 500, memory: "much" })),
  taken: await refusal(() => node.qemu.$post({ vmid })),
};
const resources = await proxmox.cluster.resources.$get({ type: "vm" });
await done(await node.qemu.$(vmid + 1).$delete({ purge: true }));
await done(await storage.content.$("local:iso/npm.iso").$delete());
report({ version: version.release, size: meta.size, vmid, printed: ran["out-data"], seen: resources.map((r) => [r.vmid, r.name, r.template]), errors });
