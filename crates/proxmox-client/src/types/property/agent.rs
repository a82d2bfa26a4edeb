//! `Agent`: the option `agent`.

use super::{property_type, string::PropertyString};

property_type!(
    /// Whether the VM has a channel for the QEMU guest agent, and how PVE uses it.
    ///
    /// This is the device only; that a program answers there is another thing, see [`QemuAgent::ping`](crate::QemuAgent::ping).
    Agent, "enabled"
);

impl Agent {
    /// With the channel, or without.
    pub fn enabled(on: bool) -> Self {
        let mut property = PropertyString::new("enabled");
        property.put_bool("enabled", on);
        Self(property)
    }

    /// Should the guest give freed blocks back after its disk was moved or cloned?
    #[must_use]
    pub fn fstrim_cloned_disks(mut self, on: bool) -> Self {
        self.0.put_bool("fstrim_cloned_disks", on);
        self
    }

    /// Is the channel there? PVE's default is no.
    pub fn is_enabled(&self) -> bool {
        self.0.get_bool("enabled").unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, on) in [
            ("1", true),
            ("1,fstrim_cloned_disks=1", true),
            ("enabled=1", true),
            ("0", false),
            ("type=isa", false),
        ] {
            let agent: Agent = text.parse().expect(text);
            assert_eq!(agent.is_enabled(), on, "{text}");
            assert_eq!(agent.to_string(), text);
        }
        assert_eq!(
            Agent::enabled(true).fstrim_cloned_disks(true).to_string(),
            "1,fstrim_cloned_disks=1"
        );
    }
}
