//! Property strings: the `key=value,key=value` texts inside of VM options. Unknown keys and their order are kept.

pub(crate) mod agent;
pub(crate) mod boot;
pub(crate) mod cpu;
pub(crate) mod drive;
pub(crate) mod net;
pub(crate) mod smbios;
pub(crate) mod string;

/// Declares a typed view over a [`string::PropertyString`] with its default key.
macro_rules! property_type {
    ($(#[$doc:meta])* $name:ident, $default_key:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name($crate::types::property::string::PropertyString);

        impl $name {
            /// The value of `key`, whether this crate knows the key or not.
            pub fn get(&self, key: &str) -> Option<&str> {
                self.0.get(key)
            }

            /// Sets any key.
            ///
            /// # Errors
            /// [`Error::Invalid`](crate::Error::Invalid) when key or value cannot stand in a property string.
            pub fn with(mut self, key: &str, value: &str) -> Result<Self, crate::Error> {
                self.0.set(key, value)?;
                Ok(self)
            }

            /// Takes a key away.
            #[must_use]
            pub fn without(mut self, key: &str) -> Self {
                self.0.remove(key);
                self
            }

            /// All keys and values in their order; the key of a bare value is its full name.
            pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
                self.0.pairs()
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::Error;
            fn from_str(text: &str) -> Result<Self, crate::Error> {
                $crate::types::property::string::PropertyString::parse(text, $default_key).map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
pub(crate) use property_type;
