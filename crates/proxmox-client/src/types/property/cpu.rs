//! `Cpu`: the option `cpu`.

use super::{property_type, string::PropertyString};
use crate::error::Error;

property_type!(
    /// The CPU type of a VM, with its flags.
    ///
    /// Without the option PVE uses `kvm64`, on which AlmaLinux 9 does not start (it needs x86-64-v2).
    Cpu, "cputype"
);

impl Cpu {
    /// A CPU type, for example `x86-64-v2-AES` or `host`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it cannot be the name of one: letters, digits and `-_.`.
    pub fn of_type(cputype: &str) -> Result<Self, Error> {
        if cputype.is_empty()
            || !cputype
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(Error::invalid(
                "cpu",
                format!("{cputype:?} is not the name of a CPU type such as x86-64-v2-AES or host"),
            ));
        }
        let mut property = PropertyString::new("cputype");
        property.set("cputype", cputype)?;
        Ok(Self(property))
    }

    /// The CPU type.
    pub fn cputype(&self) -> Option<&str> {
        self.get("cputype")
    }

    /// The flags, each with its `+` or `-`.
    pub fn flags(&self) -> Vec<&str> {
        self.get("flags")
            .map(|flags| flags.split(';').collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_flags() {
        let cpu: Cpu = "host,flags=+aes;-pcid,hidden=1".parse().expect("well formed");
        assert_eq!(cpu.cputype(), Some("host"));
        assert_eq!(cpu.flags(), ["+aes", "-pcid"]);
        assert_eq!(cpu.to_string(), "host,flags=+aes;-pcid,hidden=1");
        assert_eq!(
            Cpu::of_type("x86-64-v2-AES").expect("a type").to_string(),
            "x86-64-v2-AES"
        );
        assert_eq!("cputype=kvm64".parse::<Cpu>().expect("named").cputype(), Some("kvm64"));
        assert!(Cpu::of_type("a,b").is_err());
    }
}
