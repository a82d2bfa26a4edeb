//! Preflight of the media: is the installer there, can it get there, can a guest reach our HTTP server?

use std::net::{IpAddr, SocketAddr};

use proxmox_client::{
    Checksum, Client, Content, DownloadUrl, ErrorKind, NetworkInterface, StorageStatus, Upload, VolId, Volume,
};

use super::checks::suggestion;
use super::report::PlanReport;
use super::survey::InstallerIso;
use crate::Error;
use crate::build::needs_medium;
use crate::checksum_list::{self, FetchError, Fetcher};
use crate::spec::{Delivery, ImageSpec, IsoChecksum, IsoSource};
use crate::text::human_bytes;

/// Whether the build puts a file on the ISO storage.
pub(super) fn writes_isos(spec: &ImageSpec) -> bool {
    let own_volume = spec.installer.delivery == Delivery::Oemdrv || needs_medium(spec);
    own_volume || !matches!(spec.installer.iso, IsoSource::Volid(_))
}

/// Finds the installer, or how to bring it.
pub(super) async fn installer(
    report: &mut PlanReport,
    client: &Client,
    spec: &ImageSpec,
    storages: &[StorageStatus],
) -> Result<Option<InstallerIso>, Error> {
    let storage = match &spec.installer.iso {
        IsoSource::Volid(volid) => volid.storage(),
        _ => spec.installer.iso_storage.clone(),
    };
    let usable = storages
        .iter()
        .any(|s| s.storage.as_ref() == Some(&storage) && s.active && s.holds(&Content::Iso));
    if !usable {
        // The storage check has said so already.
        return Ok(None);
    }
    let volumes = match client
        .node(&spec.node)
        .storage(&storage)
        .content(Some(Content::Iso))
        .await
    {
        Ok(volumes) => volumes,
        // The privilege check has named it, with the line that grants it.
        Err(error) if error.kind() == ErrorKind::Permission => return Ok(None),
        Err(error) => return Err(Error::api(format!("listing the ISOs on {storage}"))(error)),
    };
    match &spec.installer.iso {
        IsoSource::Volid(volid) => Ok(present(report, volid, &volumes)),
        IsoSource::Url { url, checksum } => {
            let name = spec.installer.iso.file_name();
            let volid = VolId::of(&storage, &format!("iso/{name}")).map_err(Error::api("naming the installer ISO"))?;
            let download = DownloadUrl::iso(url.as_str(), name);
            match wanted(report, checksum, name).await {
                Wanted::Unknown => Ok(None),
                Wanted::Sum(checksum, from) => {
                    // PVE compares the checksum of a file that is there already and takes it if it fits (FACTS 56).
                    report.ok("iso", format!("ISO {name} by URL{from}"));
                    Ok(Some(InstallerIso::Download(volid, download.checksum(checksum))))
                }
                Wanted::Anything if volumes.iter().any(|volume| volume.volid == volid) => {
                    report.warning(
                        "iso",
                        format!("{volid} exists and is used as it is, unverified"),
                        "set alma_iso_checksum, and PVE compares it",
                    );
                    Ok(Some(InstallerIso::Present(volid)))
                }
                Wanted::Anything => {
                    report.warning(
                        "iso",
                        format!("{url} is downloaded unverified"),
                        "set alma_iso_checksum",
                    );
                    Ok(Some(InstallerIso::Download(volid, download)))
                }
            }
        }
        IsoSource::File { path, checksum } => {
            let name = spec.installer.iso.file_name();
            let volid = VolId::of(&storage, &format!("iso/{name}")).map_err(Error::api("naming the installer ISO"))?;
            let size = match tokio::fs::metadata(path).await {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                Ok(_) => {
                    report.error(
                        "iso",
                        format!("{} is no file", path.display()),
                        "set alma_iso_url to an ISO file",
                    );
                    return Ok(None);
                }
                Err(error) => {
                    report.error(
                        "iso",
                        format!("cannot read {}: {error}", path.display()),
                        "set alma_iso_url to an ISO file",
                    );
                    return Ok(None);
                }
            };
            match volumes.iter().find(|volume| volume.volid == volid) {
                Some(volume) if volume.size == Some(size) => {
                    report.warning(
                        "iso",
                        format!("{volid} exists with the same size and is used as it is"),
                        "remove it to have the local file sent and checked",
                    );
                    Ok(Some(InstallerIso::Present(volid)))
                }
                // An upload would overwrite it without a word (FACTS 56).
                Some(volume) => {
                    report.error(
                        "iso",
                        format!(
                            "{volid} exists with another size ({}, the local file has {})",
                            human_bytes(volume.size.unwrap_or_default()),
                            human_bytes(size)
                        ),
                        "rename the local file, or remove the one on the storage",
                    );
                    Ok(None)
                }
                None => {
                    let mut upload =
                        Upload::iso_file(path.clone()).map_err(Error::api("preparing the installer's upload"))?;
                    let mut told = String::new();
                    match wanted(report, checksum, name).await {
                        Wanted::Unknown => return Ok(None),
                        Wanted::Sum(checksum, from) => {
                            upload = upload.checksum(checksum);
                            told = from;
                        }
                        Wanted::Anything => {}
                    }
                    report.ok("iso", format!("ISO {} to send{told}", human_bytes(size)));
                    Ok(Some(InstallerIso::Upload(volid, upload)))
                }
            }
        }
    }
}

/// What an ISO must be.
enum Wanted {
    /// This, and where that is from, for people: empty, or `, sha256 as repo.almalinux.org lists it`.
    Sum(Checksum, String),
    /// Nobody says.
    Anything,
    /// Somebody was to say, and did not; the report has it.
    Unknown,
}

/// Finds out what the ISO must be: from the spec, or from the list that it names.
async fn wanted(report: &mut PlanReport, checksum: &IsoChecksum, name: &str) -> Wanted {
    let (sum, from) = match checksum {
        IsoChecksum::Unchecked => return Wanted::Anything,
        IsoChecksum::Given(sum) => (sum.clone(), String::new()),
        IsoChecksum::Listed(list) => match listed(list, name).await {
            Ok(sum) => {
                let from = format!(
                    ", {} as {} lists it",
                    sum.algorithm(),
                    list.host_str().unwrap_or_default()
                );
                (sum, from)
            }
            Err((reason, fix)) => {
                report.error("iso", format!("{list} does not say what {name} must be: {reason}"), fix);
                return Wanted::Unknown;
            }
        },
    };
    match Checksum::parse(&sum.to_string()) {
        Ok(sum) => Wanted::Sum(sum, from),
        Err(error) => {
            report.error(
                "iso",
                error.to_string(),
                "set alma_iso_checksum to sha256: and 64 digits",
            );
            Wanted::Unknown
        }
    }
}

/// The line of `name` in the list at `list`; why there is none, and what to do.
async fn listed(list: &url::Url, name: &str) -> Result<crate::spec::Checksum, (String, String)> {
    const GIVE: &str =
        "set alma_iso_checksum to sha256: and the ISO's 64 digits, or to file: and the path of a list fetched by hand";
    let unreachable = |error: FetchError| {
        let fix = match &error {
            FetchError::NoAuthority => format!("install ca-certificates, or {GIVE}"),
            // A minor release that is no longer current moves there from AlmaLinux's mirrors, its ISOs with it.
            FetchError::Status(_) => {
                format!("is the address right? Earlier releases are under https://vault.almalinux.org; else {GIVE}")
            }
            _ => format!("no proxy is used for it; {GIVE}"),
        };
        (error.to_string(), fix)
    };
    let text = Fetcher::new()
        .map_err(unreachable)?
        .fetch(list)
        .await
        .map_err(unreachable)?;
    checksum_list::checksum_of(&text, name).map_err(|error| (error.to_string(), GIVE.to_owned()))
}

fn present(report: &mut PlanReport, volid: &VolId, volumes: &[Volume]) -> Option<InstallerIso> {
    if let Some(volume) = volumes.iter().find(|volume| volume.volid == *volid) {
        report.ok("iso", format!("ISO {}", human_bytes(volume.size.unwrap_or_default())));
        return Some(InstallerIso::Present(volid.clone()));
    }
    let names: Vec<&str> = volumes.iter().map(|volume| volume.volid.as_str()).collect();
    report.error(
        "iso",
        format!("there is no `{volid}`"),
        suggestion(volid.as_str(), &names, "alma_iso_url"),
    );
    None
}

/// The address under which a guest reaches our HTTP server, when it has to.
pub(super) async fn http(
    report: &mut PlanReport,
    client: &Client,
    spec: &ImageSpec,
    networks: &[NetworkInterface],
) -> Option<IpAddr> {
    let Delivery::Http { bind, announce, .. } = &spec.installer.delivery else {
        return None;
    };
    if let Some(address) = announce {
        // What lies between is the user's to know: no look from here can tell.
        report.ok(
            "http",
            format!("kickstart served, for guests at {address} (http_address)"),
        );
        return Some(*address);
    }
    let address = match bind.filter(|address| !address.is_unspecified()) {
        Some(address) => Some(address),
        None => address_towards(client.endpoint()).await,
    };
    let Some(address) = address else {
        report.error(
            "http",
            format!(
                "cannot tell which address of this machine reaches {}",
                client.endpoint()
            ),
            "set http_bind_address to the one that guests reach (http_address behind a NAT), or kickstart_delivery = \"oemdrv\"",
        );
        return None;
    };
    let near = networks
        .iter()
        .filter(|n| n.is_bridge())
        .any(|network| network.cidr.as_deref().is_some_and(|cidr| contains(cidr, address)));
    if near || address.is_loopback() {
        report.ok("http", format!("kickstart served from {address}"));
    } else {
        report.warning(
            "http",
            format!("the kickstart is served from {address}, which lies on no bridge's own network"),
            "make sure that a guest's network reaches it, or set kickstart_delivery = \"oemdrv\", which needs no network",
        );
    }
    Some(address)
}

/// This machine's own address on the way to `endpoint`. Connecting a UDP socket sends nothing; it only asks the routing.
async fn address_towards(endpoint: &str) -> Option<IpAddr> {
    let url = url::Url::parse(endpoint).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default()?;
    let there: SocketAddr = tokio::net::lookup_host((host.as_str(), port)).await.ok()?.next()?;
    let any: IpAddr = if there.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(there).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Whether `address` lies in `192.0.2.2/24`.
fn contains(cidr: &str, address: IpAddr) -> bool {
    let Some((network, prefix)) = cidr.split_once('/') else {
        return false;
    };
    let (Ok(IpAddr::V4(network)), Ok(prefix), IpAddr::V4(address)) = (network.parse(), prefix.parse::<u32>(), address)
    else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0);
    u32::from(network) & mask == u32::from(address) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (cidr, address, expected) in [
            ("192.0.2.2/24", "192.0.2.200", true),
            ("192.0.2.2/24", "192.0.3.1", false),
            ("10.0.0.1/8", "10.255.0.1", true),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("nonsense", "8.8.8.8", false),
            ("192.0.2.2/24", "2001:db8::1", false),
        ] {
            assert_eq!(contains(cidr, address.parse().unwrap()), expected, "{cidr} {address}");
        }
    }

    #[tokio::test]
    async fn the_way_to_loopback_is_loopback() {
        assert_eq!(
            address_towards("https://127.0.0.1:8006").await,
            Some([127, 0, 0, 1].into())
        );
        assert_eq!(address_towards("nonsense").await, None);
    }
}
