//! `Boot`: the option `boot`.

use super::{property_type, string::PropertyString};
use crate::error::Error;

property_type!(
    /// The boot order of a VM.
    ///
    /// ```
    /// use proxmox_client::Boot;
    /// assert_eq!(Boot::order(["scsi0", "ide2"])?.to_string(), "order=scsi0;ide2");
    /// # Ok::<(), proxmox_client::Error>(())
    /// ```
    ///
    /// PVE takes an order that names a missing device on create and refuses it on a change (`FACTS` 35); with no boot device at
    /// all it shows a lone space (`FACTS` 34).
    Boot, "legacy"
);

impl Boot {
    /// These devices, tried in this order.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a name is not that of a device.
    pub fn order<D: AsRef<str>>(devices: impl IntoIterator<Item = D>) -> Result<Self, Error> {
        let mut names = Vec::new();
        for device in devices {
            let device = device.as_ref();
            if device.is_empty() || !device.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
                return Err(Error::invalid(
                    "boot",
                    format!("{device:?} is not a device such as scsi0, ide2 or net0"),
                ));
            }
            names.push(device.to_owned());
        }
        if names.is_empty() {
            return Err(Error::invalid(
                "boot",
                "no device given; to have none, remove the option",
            ));
        }
        let mut property = PropertyString::new("legacy");
        property.put("order", &names.join(";"));
        Ok(Self(property))
    }

    /// The devices in their order; empty for none and for the old letters.
    pub fn devices(&self) -> Vec<&str> {
        self.get("order")
            .map(|order| order.split(';').filter(|name| !name.is_empty()).collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_the_old_form() {
        let boot: Boot = "order=scsi0;sata0".parse().expect("recorded");
        assert_eq!(boot.devices(), ["scsi0", "sata0"]);
        assert!(" ".parse::<Boot>().expect("recorded").devices().is_empty());
        let old: Boot = "cdn".parse().expect("the old form");
        assert_eq!((old.get("legacy"), old.devices().len()), (Some("cdn"), 0));
        assert!(
            Boot::order(["scsi0;ide2"]).is_err() && Boot::order([""]).is_err() && Boot::order([] as [&str; 0]).is_err()
        );
    }
}
