//! Tests of reading a connection.

use super::*;

fn input(username: &str, token: Option<&str>, password: Option<&str>) -> ConnectionInput {
    ConnectionInput {
        url: "https://10.23.45.10:8006/api2/json".into(),
        username: username.into(),
        token: token.map(SecretString::from),
        password: password.map(SecretString::from),
        ..ConnectionInput::default()
    }
}

#[test]
fn credentials_in_every_spelling() {
    for (username, token, password, want) in [
        ("packer@pve!build", Some("s-1"), None, Ok("packer@pve!build")),
        ("packer@pve!build", Some("build=s-1"), None, Ok("packer@pve!build")),
        (
            "packer@pve!build",
            Some("packer@pve!build=s-1\n"),
            None,
            Ok("packer@pve!build"),
        ),
        (
            "packer@pve!build",
            Some("PVEAPIToken=packer@pve!build=s-1"),
            None,
            Ok("packer@pve!build"),
        ),
        ("packer@pve", Some("build=s-1"), None, Ok("packer@pve!build")),
        ("packer@pve", Some("packer@pve!build=s-1"), None, Ok("packer@pve!build")),
        ("a@b@pve", Some("build=s-1"), None, Ok("a@b@pve!build")),
        ("root@pam", None, Some("s-1"), Ok("root@pam")),
        ("packer@pve!build", Some("s-1"), Some("s-2"), Ok("packer@pve!build")),
        ("packer@pve", Some("s-1"), None, Err("without the name of its token")),
        ("packer@pve", Some("root@pam!x=s-1"), None, Err("another user")),
        ("packer@pve!build", Some("other=s-1"), None, Err("another name")),
        ("packer@pve", Some("build=s-1"), Some("s-2"), Err("both set")),
        ("packer@pve!build", None, Some("s-1"), Err("has no password")),
        ("packer@pve!build", None, None, Err("not set")),
        ("root@pam", None, None, Err("not set")),
        ("root", None, Some("s-1"), Err("lacks the realm")),
        ("root@", None, Some("s-1"), Err("the realm")),
        ("a b@pam", None, Some("s-1"), Err("holds a blank")),
        ("packer@pve!1", Some("s-1"), None, Err("no name of a token")),
        ("packer@pve!build", Some("s 1"), None, Err("holds a blank")),
        ("packer@pve!build", Some("build="), None, Err("holds a blank")),
        ("", Some("s-1"), None, Err("not set")),
    ] {
        let ConnectionOutcome {
            connection,
            mut found,
            missing,
        } = input(username, token, password).read();
        found.append(missing);
        match want {
            Ok(id) => {
                let connection = connection.expect(username);
                assert_eq!(connection.credentials.id(), id, "{username}");
                assert!(!format!("{connection:?}").contains("s-1"));
                let (Credentials::Token { secret, .. } | Credentials::Password { password: secret, .. }) =
                    connection.credentials;
                assert_eq!(secret.expose_secret(), "s-1");
            }
            Err(message) => {
                assert!(connection.is_none(), "{username} {token:?}");
                let text = found.to_string();
                assert!(text.contains(message), "{username}: {text}");
                assert!(!text.contains("s-1") && !text.contains("s-2"), "{text}");
            }
        }
    }
}

#[test]
fn addresses() {
    for (url, want) in [
        ("https://10.23.45.10:8006/api2/json", Ok("https://10.23.45.10:8006/")),
        ("https://10.23.45.10:8006/api2/json/", Ok("https://10.23.45.10:8006/")),
        ("https://pve.example.com:8006", Ok("https://pve.example.com:8006/")),
        ("https://[fd00::1]:8006/", Ok("https://[fd00::1]:8006/")),
        ("https://pve.example.com", Ok("https://pve.example.com/")),
        ("http://10.23.45.10:8006", Err("in the clear")),
        ("10.23.45.10:8006", Err("write https://10.23.45.10:8006")),
        ("https://root:s-1@10.23.45.10:8006", Err("user or password")),
        ("https://10.23.45.10:8006/api2/extjs", Err("not the API's path")),
        ("https://10.23.45.10:80060", Err("no address")),
        ("https://", Err("no address")),
        ("", Err("not set")),
    ] {
        let mut given = input("root@pam", None, Some("x"));
        given.url = url.into();
        let ConnectionOutcome {
            connection,
            mut found,
            missing,
        } = given.read();
        found.append(missing);
        match want {
            Ok(address) => assert_eq!(connection.expect(url).url.as_str(), address),
            Err(message) => {
                let text = found.to_string();
                assert!(
                    connection.is_none() && text.contains(message) && !text.contains("s-1"),
                    "{url}: {text}"
                );
            }
        }
    }
}

#[test]
fn whom_to_trust() {
    let print = ["AC"; 32].join(":");
    let with = |ca: &str, print: &str, skip| {
        let given = ConnectionInput {
            ca_file: ca.into(),
            fingerprint: print.into(),
            skip_tls_verify: skip,
            ..input("root@pam", None, Some("x"))
        };
        let outcome = given.read();
        (outcome.connection.map(|connection| connection.tls), outcome.found)
    };
    assert_eq!(with("", "", false), (Some(TlsTrust::Verify), Diagnostics::new()));
    assert_eq!(with("ca.pem", "", false).0, Some(TlsTrust::CaFile("ca.pem".into())));
    assert!(matches!(with("ca.pem", &print, false).0, Some(TlsTrust::Pinned(_))));
    let (tls, found) = with("", &print, true);
    assert!(matches!(tls, Some(TlsTrust::Pinned(_))) && found.to_string().contains("no effect"));
    let (tls, found) = with("", "", true);
    assert!(tls == Some(TlsTrust::Insecure) && found.to_string().contains("proxmox_fingerprint"));
    let (tls, found) = with("", "AC:AC", false);
    assert!(tls.is_none() && found.has_errors());
}
