//! `Endpoint`: the server's address in all spellings that people use.

use url::Url;

use crate::error::Error;

/// Where PVE serves its API by itself.
const DEFAULT_PORT: u16 = 8006;

/// The address of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Ends in `/api2/json`, without a slash after it.
    base: String,
    origin: String,
}

impl Endpoint {
    /// Takes `https://host:8006`, with or without a slash or `/api2/json` (the form of Packer's `proxmox_url`), and a bare
    /// `host` or `host:port`. A bare host gets port 8006, PVE's own; a URL means what it says, so `https://host` is port 443,
    /// where a reverse proxy answers. `http://` is refused: PVE does not serve the API there, and a token would travel open.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Err(Error::invalid("endpoint", format!("{} {reason}", redacted(text))));
        let trimmed = text.trim();
        if trimmed.to_ascii_lowercase().starts_with("http://") {
            return refuse("is not encrypted: write https://");
        }
        let bare = !trimmed.contains("://");
        let Ok(mut url) = Url::parse(&if bare {
            format!("https://{trimmed}")
        } else {
            trimmed.to_owned()
        }) else {
            return refuse("is not an address: write https://host:8006");
        };
        if url.scheme() != "https" {
            return refuse("must begin with https://");
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()).map(str::to_owned) else {
            return refuse("names no host: write https://host:8006");
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("must not hold a user or password: they are given apart");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("must not hold `?` or `#`: take the address of the server, not that of a page");
        }
        // `Url` drops a port that is the scheme's own, so `host:443` must be told from `host` by its text.
        let host_end = trimmed.find('/').filter(|_| bare).unwrap_or(trimmed.len());
        let says_port = trimmed[..host_end]
            .rsplit(']')
            .next()
            .is_some_and(|rest| rest.contains(':'));
        if bare && !says_port && url.set_port(Some(DEFAULT_PORT)).is_err() {
            return refuse("is not an address: write https://host:8006");
        }
        if !matches!(url.path().trim_end_matches('/'), "" | "/api2/json") {
            return refuse("has a path that is not the API's: end it after the port, or with /api2/json");
        }
        let origin = match url.port() {
            Some(port) => format!("https://{host}:{port}"),
            None => format!("https://{host}"),
        };
        Ok(Self {
            base: format!("{origin}/api2/json"),
            origin,
        })
    }

    /// The URL of a path below `/api2/json`.
    pub(crate) fn url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.base)
    }

    /// Scheme, host and port, for messages.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }
}

/// The text for a message, without what may be a password before an `@`.
pub(crate) fn redacted(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before
                .split_once("://")
                .map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{:?}", format!("{scheme}***@{host}"))
        }
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_one_server() {
        for text in [
            "https://10.23.45.10:8006",
            "https://10.23.45.10:8006/",
            "https://10.23.45.10:8006/api2/json",
            "https://10.23.45.10:8006/api2/json/",
            "10.23.45.10",
            "10.23.45.10:8006",
            "10.23.45.10/api2/json",
            " HTTPS://10.23.45.10:8006 ",
        ] {
            let endpoint = Endpoint::parse(text).expect(text);
            assert_eq!(
                endpoint.url("/version"),
                "https://10.23.45.10:8006/api2/json/version",
                "{text}"
            );
            assert_eq!(endpoint.origin(), "https://10.23.45.10:8006", "{text}");
        }
        for (text, origin) in [
            ("https://pve.example.com", "https://pve.example.com"),
            ("pve.example.com:443", "https://pve.example.com"),
            ("pve", "https://pve:8006"),
            ("[fd00::1]", "https://[fd00::1]:8006"),
            ("https://[fd00::1]:8006/api2/json", "https://[fd00::1]:8006"),
        ] {
            assert_eq!(Endpoint::parse(text).expect(text).origin(), origin, "{text}");
        }
    }

    #[test]
    fn other_addresses_are_refused_with_what_to_write() {
        for (text, hint) in [
            ("http://pve:8006", "https://"),
            ("HTTP://pve:8006", "https://"),
            ("ftp://pve", "https://"),
            ("", "https://host:8006"),
            ("https://", "https://host:8006"),
            ("https://pve:8006/#v1:0:18", "page"),
            ("https://pve:8006/api2/extjs", "/api2/json"),
            ("https://pve:8006/api2/json/nodes", "/api2/json"),
            ("https://pve:99999", "https://host:8006"),
            ("https://root:geheim@pve:8006", "given apart"),
        ] {
            let error = Endpoint::parse(text).expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_an_https_address_or_an_error(text in "\\PC{0,60}", host in "[a-z0-9.:\\[\\]@/?#-]{0,30}") {
            for text in [text.clone(), host.clone(), format!("https://{host}")] {
                if let Ok(endpoint) = Endpoint::parse(&text) {
                    proptest::prop_assert!(endpoint.origin().starts_with("https://"));
                    proptest::prop_assert!(endpoint.url("/x").ends_with("/api2/json/x"));
                    proptest::prop_assert_eq!(Endpoint::parse(endpoint.origin()).expect("our own"), endpoint);
                }
            }
        }
    }
}
