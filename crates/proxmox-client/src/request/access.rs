//! `/access`.

use secrecy::{ExposeSecret, SecretString};

use super::Request;

pub(crate) fn permissions(path: Option<&str>) -> Request {
    Request::get("/access/permissions".into()).optional("path", path)
}

/// Logs in, or renews: a ticket may be given as the password (`FACTS` 9). Its parameters hold the secret: never print it.
pub(crate) fn ticket(username: &str, password: &SecretString) -> Request {
    Request::post("/access/ticket".into())
        .param("username", username)
        .param("password", password.expose_secret())
}
