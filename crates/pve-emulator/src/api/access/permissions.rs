//! `/access/permissions`: which privileges are in effect where.

use serde_json::{Map, Value};

use super::{Call, Outcome, Routes};
use crate::state::Identity;

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /access/permissions", permissions);
}

async fn permissions(call: Call) -> Outcome {
    let access = call.world.access();
    let who = match call.params.text("userid") {
        Some(userid) if userid != call.who.full() => {
            // One's own tokens may be asked about by the user itself.
            let own = call.who.token.is_none() && userid.split_once('!').is_some_and(|(user, _)| user == call.who.user);
            if !own {
                access.require(&call.who, "/access", &["Sys.Audit"])?;
            }
            match userid.split_once('!') {
                Some((user, token)) => Identity {
                    user: user.to_owned(),
                    token: Some(token.to_owned()),
                },
                None => Identity {
                    user: userid,
                    token: None,
                },
            }
        }
        _ => call.who.clone(),
    };
    let paths: Vec<String> = if let Some(path) = call.params.text("path") {
        vec![path]
    } else {
        access.told_paths().into_iter().collect()
    };
    let mut found = Map::new();
    for path in paths {
        let have = access.privileges(&who, &path);
        if !have.is_empty() || call.params.contains("path") {
            let have: Map<String, Value> = have.into_iter().map(|(p, all)| (p, i32::from(all).into())).collect();
            found.insert(path, have.into());
        }
    }
    Ok(Value::from(found).into())
}
