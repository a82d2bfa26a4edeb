//! `/access`: tickets, users, groups, tokens, roles, the access control list.

mod acl;
mod groups;
mod permissions;
mod roles;
mod ticket;
mod tokens;
mod users;

use serde_json::json;

use super::{Call, Outcome, Routes};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /access", async |_| {
        Ok(json!(
            [
                "acl",
                "domains",
                "groups",
                "openid",
                "password",
                "permissions",
                "roles",
                "tfa",
                "ticket",
                "users"
            ]
            .map(|s| json!({ "subdir": s }))
        )
        .into())
    });
    routes.add("GET /access/domains", async |_| {
        Ok(json!([
            { "realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication" },
            { "realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server" },
        ])
        .into())
    });
    acl::add(routes);
    groups::add(routes);
    permissions::add(routes);
    roles::add(routes);
    ticket::add(routes);
    tokens::add(routes);
    users::add(routes);
}

/// A random UUID as token secrets and VMs have.
pub(crate) fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}
