//! Serves an emulator until Ctrl-C: `cargo run -p k3simage-pve-emulator --example serve -- 127.0.0.1:8006 DATA_DIR`.

use std::io::Write as _;

use pve_emulator::Emulator;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut builder = Emulator::builder();
    if let Some(address) = arguments.next() {
        builder = builder.listen(address.parse()?);
    }
    if let Some(dir) = arguments.next() {
        builder = builder.data_dir(dir);
    }
    let pve = builder.start().await?;
    pve.add_installer_iso("local", "AlmaLinux-9.3-x86_64-minimal.iso")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "url          {}", pve.url())?;
    writeln!(out, "token        {}={}", pve.token_id(), pve.token_secret())?;
    writeln!(out, "fingerprint  {}", pve.fingerprint())?;
    writeln!(out, "data         {}", pve.data_dir().display())?;
    out.flush()?;
    drop(out);
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_signal.cancel();
        }
    });
    pve.serve_until(stop).await;
    Ok(())
}
