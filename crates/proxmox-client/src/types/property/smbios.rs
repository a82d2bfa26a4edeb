//! `Smbios1`: the option `smbios1`.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{property_type, string::PropertyString};
use crate::error::Error;

property_type!(
    /// The VM's SMBIOS type 1 table: its UUID and the texts that a guest can read as its maker and model.
    ///
    /// Anyone with `VM.Audit` can read it, so it is no place for a secret; PVE takes at most 512 characters in all.
    Smbios1, ""
);

/// PVE's limit for the whole text (`maxLength` of the API schema).
const MAX_LENGTH: usize = 512;

impl Default for Smbios1 {
    fn default() -> Self {
        Self(PropertyString::new(""))
    }
}

impl Smbios1 {
    /// The VM's UUID as text.
    pub fn uuid(&self) -> Option<&str> {
        self.get("uuid")
    }

    /// Sets one of `manufacturer`, `product`, `version`, `serial`, `sku`, `family`; it travels as base64.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another field, an empty text, or when the whole grows beyond 512 characters.
    pub fn with_text(mut self, field: &str, text: &str) -> Result<Self, Error> {
        if !["manufacturer", "product", "version", "serial", "sku", "family"].contains(&field) || text.is_empty() {
            return Err(Error::invalid(
                "smbios1",
                format!("{field:?} is not a text field: manufacturer, product, version, serial, sku or family"),
            ));
        }
        // The flag holds for all texts, so the ones that stood there in the plain are encoded with it.
        if self.0.get_bool("base64") != Some(true) {
            let plain: Vec<(String, String)> = self
                .pairs()
                .filter(|(key, _)| *key != "uuid" && *key != "base64")
                .map(|(key, value)| (key.to_owned(), BASE64_STANDARD.encode(value)))
                .collect();
            for (key, value) in plain {
                self.0.put(&key, &value);
            }
            self.0.put_bool("base64", true);
        }
        self.0.put(field, &BASE64_STANDARD.encode(text));
        let length = self.to_string().len();
        if length > MAX_LENGTH {
            return Err(Error::invalid(
                "smbios1",
                format!("{length} characters are too long: PVE takes at most {MAX_LENGTH}"),
            ));
        }
        Ok(self)
    }

    /// A text field, decoded.
    pub fn text(&self, field: &str) -> Option<String> {
        let value = self.get(field)?;
        if self.0.get_bool("base64") == Some(true) {
            String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()
        } else {
            Some(value.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_travel_as_base64_beside_the_uuid() {
        let read: Smbios1 = "uuid=11111111-2222-3333-4444-555555555555,family=plain"
            .parse()
            .expect("well formed");
        let set = read.with_text("serial", "ds=nocloud;s=http://x/").expect("fits");
        assert_eq!(set.uuid(), Some("11111111-2222-3333-4444-555555555555"));
        assert_eq!(set.text("serial").as_deref(), Some("ds=nocloud;s=http://x/"));
        assert_eq!(set.text("family").as_deref(), Some("plain"));
        let printed = set.to_string();
        assert_eq!(printed.parse::<Smbios1>().expect("printed by us"), set);
        assert!(!printed.contains("nocloud"), "{printed}");
    }

    #[test]
    fn limits() {
        assert!(Smbios1::default().with_text("serial", &"x".repeat(400)).is_err());
        assert!(Smbios1::default().with_text("uuid", "x").is_err());
        assert!(Smbios1::default().with_text("serial", "").is_err());
        assert!("bare".parse::<Smbios1>().is_err());
    }
}
