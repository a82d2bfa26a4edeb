//! `/access/ticket`: logging in with a password.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Call, Outcome, Routes};
use crate::state::{Access, Identity};
use crate::wire::{Answer, Failure};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /access/ticket", async |_| Ok(Answer::null()));
    routes.add("POST /access/ticket", ticket);
}

async fn ticket(call: Call) -> Outcome {
    let mut userid = call.params.required("username")?;
    if let Some(realm) = call.params.text("realm")
        && !userid.contains('@')
    {
        userid = format!("{userid}@{realm}");
    }
    let password = call.params.required("password")?;
    // With both it only verifies a login and its rights, and gives no ticket.
    let verify = call.params.text("path").zip(call.params.text("privs"));
    let body = {
        let access = call.world.access();
        let granted = verify.as_ref().is_none_or(|(path, privileges)| {
            let who = Identity {
                user: userid.clone(),
                token: None,
            };
            let wanted: Vec<&str> = privileges.split([',', ';', ' ']).filter(|p| !p.is_empty()).collect();
            access.require(&who, path, &wanted).is_ok()
        });
        let known = access.check_password(&userid, &password) && granted;
        known.then(|| {
            if verify.is_some() {
                return json!({ "username": userid, "cap": capabilities(&access, &userid) });
            }
            json!({
                "username": userid,
                "ticket": access.make_ticket(&userid),
                "CSRFPreventionToken": access.make_csrf(&userid),
                "cap": capabilities(&access, &userid),
            })
        })
    };
    if let Some(body) = body {
        return Ok(body.into());
    }
    call.world.delay(Duration::from_secs(3)).await;
    Err(Failure::new(401, "authentication failure"))
}

/// What the web interface may show: the user's privileges by area.
fn capabilities(access: &Access, userid: &str) -> Value {
    let who = Identity {
        user: userid.to_owned(),
        token: None,
    };
    let mut cap = Map::new();
    for (area, path, prefixes) in [
        ("vms", "/vms", &["VM.", "Permissions.Modify"][..]),
        ("storage", "/storage", &["Datastore.", "Permissions.Modify"]),
        ("access", "/access", &["User.", "Group.", "Permissions.Modify"]),
        ("nodes", "/nodes", &["Sys.", "Permissions.Modify"]),
        ("sdn", "/sdn", &["SDN.", "Permissions.Modify"]),
        ("mapping", "/mapping", &["Mapping.", "Permissions.Modify"]),
        ("dc", "/", &["Sys.Audit", "Sys.Modify", "SDN."]),
    ] {
        let have: Map<String, Value> = access
            .privileges(&who, path)
            .into_keys()
            .filter(|p| prefixes.iter().any(|prefix| p.starts_with(prefix)))
            .map(|p| (p, 1.into()))
            .collect();
        cap.insert(area.to_owned(), have.into());
    }
    cap.into()
}
