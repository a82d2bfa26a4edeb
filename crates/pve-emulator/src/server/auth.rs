//! Who is calling: tickets, tokens, CSRF.

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use super::Server;
use crate::state::Identity;
use crate::wire::Failure;

impl Server {
    /// Finds out who is calling. The cookie beats the token (`FACTS` 6).
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        method: &Method,
        is_upload: bool,
    ) -> Result<Identity, Failure> {
        let access = self.world.access();
        if let Some(ticket) = ticket_of(headers) {
            let user = access
                .check_ticket(&ticket)
                .ok_or_else(|| Failure::unauthorized("Authentication failed!"))?;
            // Uploads by cookie need no CSRF token (FACTS 10).
            if *method != Method::GET && !is_upload {
                let token = header(headers, "csrfpreventiontoken").unwrap_or_default();
                if !access.check_csrf(&user, token) {
                    return Err(Failure::unauthorized("Permission denied - invalid csrf token"));
                }
            }
            return Ok(Identity { user, token: None });
        }
        let token = header(headers, AUTHORIZATION.as_str())
            .and_then(|h| h.strip_prefix("PVEAPIToken"))
            .and_then(|h| h.strip_prefix(['=', ' ']));
        let Some(token) = token else {
            return Err(Failure::unauthorized("No ticket"));
        };
        let token = percent_decode_str(token).decode_utf8_lossy();
        access
            .check_token(&token)
            .ok_or_else(|| Failure::unauthorized("Authentication failed!"))
    }
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The ticket from the cookie, percent-encoded or not, or from the header `Authorization: PVEAuthCookie=...`.
fn ticket_of(headers: &HeaderMap) -> Option<String> {
    let cookie = header(headers, COOKIE.as_str())
        .into_iter()
        .flat_map(|c| c.split(';'))
        .find_map(|c| {
            let (name, value) = c.trim().split_once('=')?;
            matches!(name, "PVEAuthCookie" | "__Host-PVEAuthCookie").then_some(value)
        });
    let text = cookie.or_else(|| header(headers, AUTHORIZATION.as_str())?.strip_prefix("PVEAuthCookie="))?;
    Some(percent_decode_str(text).decode_utf8_lossy().into_owned())
}
