// The package @corsinvest/cv4pve-api-javascript: JSON bodies over Node's own HTTPS. By token, or by password with PVE_LOGIN=password.

import { createRequire } from "node:module";
import {
  MEDIUM_SHA256, MEDIUM_URL, PVE_HOST, PVE_PASSWORD, PVE_PORT, PVE_REALM, PVE_TOKEN_ID, PVE_TOKEN_SECRET, PVE_USER, machine, report, until,
} from "./run.mjs";

const { PveClient } = createRequire(import.meta.url)("@corsinvest/cv4pve-api-javascript");
const client = new PveClient(PVE_HOST, PVE_PORT);
client.timeout = 300_000;
if (process.env.PVE_LOGIN === "password") {
  if (!(await client.login(PVE_USER, PVE_PASSWORD, PVE_REALM))) throw new Error("the login was refused");
} else {
  client.apiToken = `${PVE_TOKEN_ID}=${PVE_TOKEN_SECRET}`;
}

/** The data of a call that must be answered well. */
async function data(call) {
  const result = await call;
  if (!result.isSuccessStatusCode) throw new Error(`${result.requestResource}: ${result.statusCode} ${result.reasonPhrase}`);
  return result.response.data;
}

/** Waits for a task by the client's own means and takes nothing but OK. */
async function done(call) {
  const upid = await data(call);
  if (!(await client.waitForTaskToFinish(upid, 50, 300_000))) throw new Error(`${upid} did not end`);
  const status = await client.getExitStatusTask(upid);
  if (status !== "OK") throw new Error(`${upid}: ${status}`);
}

/** How a call is refused. */
async function refusal(call) {
  const result = await call;
  return { status: result.statusCode, reason: result.reasonPhrase, errors: result.response.errors ?? null };
}

const node = client.nodes.get("pve");
const version = await data(client.version.version());
const meta = await data(node.queryUrlMetadata.queryUrlMetadata(MEDIUM_URL));
const storage = node.storage.get("local");
await done(storage.downloadUrl.downloadUrl("iso", "npm.iso", MEDIUM_URL, MEDIUM_SHA256, "sha256"));

const vmid = Number(await data(client.cluster.nextid.nextid()));
// Its typed form takes some eighty positions; this is the client's own way around them.
await done(client.create("/nodes/pve/qemu", machine(vmid, "local:iso/npm.iso")));
const vm = node.qemu.get(vmid);
await done(vm.status.start.vmStart());
await until(async () => (await vm.agent.ping.ping()).isSuccessStatusCode);
const { pid } = await data(vm.agent.exec.exec(["cat", "/etc/strangers-were-here"]));
const ran = await until(async () => {
  const status = await data(vm.agent.execStatus.execStatus(pid));
  return status.exited && status;
});
await data(client.set(`/nodes/pve/qemu/${vmid}/config`, { delete: "ide2,sata0", tags: "npm,golden" }));
await done(vm.status.shutdown.vmShutdown(null, null, null, 60));
await done(vm.template.template());
await done(vm.clone.cloneVm(vmid + 1, null, null, null, true, "npm-clone"));
const errors = {
  missing: await refusal(node.qemu.get(999).config.vmConfig()),
  parameter: await refusal(client.create("/nodes/pve/qemu", { vmid: 500, memory: "much" })),
  taken: await refusal(client.create("/nodes/pve/qemu", { vmid })),
};
const resources = await data(client.cluster.resources.resources("vm"));
await done(node.qemu.get(vmid + 1).destroyVm(null, true));
await done(storage.content.get("local:iso/npm.iso").delete_());
report({ version: version.release, size: meta.size, vmid, printed: ran["out-data"], seen: resources.map((r) => [r.vmid, r.name, r.template]), errors });
