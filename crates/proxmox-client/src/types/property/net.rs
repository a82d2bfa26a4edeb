//! `Net`: `netN`.

use super::{property_type, string::PropertyString};
use crate::error::Error;

property_type!(
    /// A network device of a VM.
    ///
    /// ```
    /// use proxmox_client::Net;
    /// let made = Net::virtio("vmbr0")?.vlan_tag(12)?;
    /// assert_eq!(made.to_string(), "virtio,bridge=vmbr0,tag=12");
    /// let read: Net = "virtio=BC:24:11:23:DA:1A,bridge=vmbr0".parse()?;
    /// assert_eq!((read.model(), read.mac()), (Some("virtio"), Some("BC:24:11:23:DA:1A")));
    /// # Ok::<(), proxmox_client::Error>(())
    /// ```
    ///
    /// # Source
    /// `net[n]` in the API schema; PVE itself writes `MODEL=MAC` first.
    Net, "model"
);

/// Model names that may stand as a key with the MAC address as its value (`keyAlias` of the API schema).
const MODELS: &[&str] = &[
    "virtio",
    "e1000",
    "e1000e",
    "vmxnet3",
    "rtl8139",
    "ne2k_pci",
    "ne2k_isa",
    "pcnet",
    "i82551",
    "i82557b",
    "i82559er",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
];

impl Net {
    /// A virtio device on `bridge`; PVE chooses the MAC address.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `bridge` cannot be the name of an interface.
    pub fn virtio(bridge: &str) -> Result<Self, Error> {
        let mut property = PropertyString::new("model");
        property.put("model", "virtio");
        // The kernel's limit for the name of an interface is 15.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if !(1..=15).contains(&bridge.len()) || !bridge.bytes().all(plain) {
            return Err(Error::invalid(
                "bridge",
                format!("{bridge:?} is not the name of a bridge such as vmbr0: 1 to 15 letters, digits and -_."),
            ));
        }
        property.set("bridge", bridge)?;
        Ok(Self(property))
    }

    /// Gives the device this MAC address.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not one for a single device.
    pub fn with_mac(mut self, mac: &str) -> Result<Self, Error> {
        let pairs: Vec<&str> = mac.split(':').collect();
        let hex = |pair: &&str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
        let first = pairs
            .first()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .unwrap_or(1);
        if pairs.len() != 6 || !pairs.iter().all(hex) || first & 1 == 1 {
            return Err(Error::invalid(
                "macaddr",
                format!("{mac:?} is not a unicast MAC address such as BC:24:11:00:00:01"),
            ));
        }
        match self.model_key() {
            Some(model) => self.0.put(model, mac),
            None => self.0.put("macaddr", mac),
        }
        Ok(self)
    }

    /// Puts the device into a VLAN.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of 1..=4094.
    pub fn vlan_tag(mut self, tag: u16) -> Result<Self, Error> {
        if !(1..=4094).contains(&tag) {
            return Err(Error::invalid(
                "tag",
                format!("{tag} is not a VLAN: PVE takes 1 to 4094"),
            ));
        }
        self.0.put("tag", &tag.to_string());
        Ok(self)
    }

    /// Should PVE's firewall stand in front of the device?
    #[must_use]
    pub fn firewall(mut self, on: bool) -> Self {
        self.0.put_bool("firewall", on);
        self
    }

    /// The device's model, for example `virtio`.
    pub fn model(&self) -> Option<&str> {
        self.get("model").or_else(|| self.model_key())
    }

    /// Its MAC address; `None` before PVE has chosen one.
    pub fn mac(&self) -> Option<&str> {
        self.get("macaddr").or_else(|| self.get(self.model_key()?))
    }

    /// The bridge it is plugged into.
    pub fn bridge(&self) -> Option<&str> {
        self.get("bridge")
    }

    fn model_key(&self) -> Option<&'static str> {
        MODELS.iter().copied().find(|model| self.get(model).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_spellings_are_read() {
        for (text, model, mac) in [
            (
                "virtio=BC:24:11:23:DA:1A,bridge=vmbr0",
                Some("virtio"),
                Some("BC:24:11:23:DA:1A"),
            ),
            ("virtio,bridge=vmbr0", Some("virtio"), None),
            (
                "model=e1000,macaddr=BC:24:11:23:DA:1A,bridge=vmbr0",
                Some("e1000"),
                Some("BC:24:11:23:DA:1A"),
            ),
            ("bridge=vmbr0", None, None),
        ] {
            let net: Net = text.parse().expect(text);
            assert_eq!(
                (net.model(), net.mac(), net.bridge()),
                (model, mac, Some("vmbr0")),
                "{text}"
            );
            assert_eq!(net.to_string(), text);
        }
    }

    #[test]
    fn a_mac_goes_where_the_old_one_was() {
        let mac = "BC:24:11:00:00:02";
        for (text, want) in [
            (
                "virtio=BC:24:11:23:DA:1A,bridge=vmbr0",
                "virtio=BC:24:11:00:00:02,bridge=vmbr0",
            ),
            ("virtio,bridge=vmbr0", "virtio,bridge=vmbr0,macaddr=BC:24:11:00:00:02"),
        ] {
            assert_eq!(
                text.parse::<Net>().expect(text).with_mac(mac).expect(mac).to_string(),
                want
            );
        }
        let net = Net::virtio("vmbr0").expect("a bridge").firewall(true);
        for bad in [
            "",
            "BC:24",
            "01:00:5E:00:00:01",
            "GG:24:11:00:00:02",
            "BC-24-11-00-00-02",
        ] {
            assert!(net.clone().with_mac(bad).is_err(), "{bad:?}");
        }
        assert!(net.clone().vlan_tag(0).is_err() && net.vlan_tag(4095).is_err());
        assert!(Net::virtio("vmbr0,tag=1").is_err() && Net::virtio("").is_err());
    }
}
