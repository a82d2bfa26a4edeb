//! A login whose rights a test gives and takes, also by the `pveum` lines that people are told to run.

use image_build::plan::Grant;
use image_build::{ImageSpec, PlanReport};
use proxmox_client::{Client, Method};
use pve_emulator::Emulator;
use pve_emulator::engine::simulated::SimulatedOptions;

use crate::common::{self, Lab};

/// The user and token of the documentation.
pub(crate) const TOKEN: &str = "packer@pve!build";
const SECRET: &str = "11111111-2222-3333-4444-555555555555";

/// A cluster with a user and a token that hold nothing, a pool, and a client for each of root and the token.
pub(crate) struct Rights {
    pub(crate) lab: Lab,
    pub(crate) root: Client,
}

impl Rights {
    pub(crate) async fn new(version: &str) -> Self {
        let builder = Emulator::builder()
            .pve_version(version)
            .user("packer@pve", "unused-password")
            .token("packer@pve", "build", SECRET, true);
        let mut lab = Lab::of(builder, SimulatedOptions::default()).await;
        let token = common::client(&lab.pve, TOKEN, SECRET);
        let root = std::mem::replace(&mut lab.client, token);
        let rights = Self { lab, root };
        rights.post("/pools", &[("poolid", "images")]).await;
        rights
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        params: &[(&str, &str)],
    ) -> Result<(), proxmox_client::Error> {
        let params: Vec<(&str, String)> = params.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        self.root.request(method, path, &params).await.map(drop)
    }

    pub(crate) async fn post(&self, path: &str, params: &[(&str, &str)]) {
        self.call(Method::POST, path, params)
            .await
            .unwrap_or_else(|error| panic!("POST {path}: {error:?}"));
    }

    /// Runs `pveum` lines as a shell would: `;`, `&&` and `||` from left to right.
    pub(crate) async fn shell(&self, line: &str) {
        let mut ok = true;
        let mut run_next = true;
        let mut command: Vec<String> = Vec::new();
        // shell-words knows quotes but no operators: those stand alone here, or at the end of a word.
        let mut words: Vec<String> = Vec::new();
        for word in shell_words::split(line).expect("a line that a shell can read") {
            match word.strip_suffix(';') {
                Some(word) => words.extend([word.to_owned(), ";".to_owned()]),
                None => words.push(word),
            }
        }
        words.push(";".to_owned());
        for word in words {
            if !["&&", "||", ";"].contains(&word.as_str()) {
                command.push(word);
                continue;
            }
            if run_next {
                ok = self.pveum(&command).await;
            }
            run_next = match word.as_str() {
                "&&" => ok,
                "||" => !ok,
                _ => true,
            };
            command.clear();
        }
        assert!(ok, "the last command failed: {line}");
    }

    /// One `pveum` command as the call of the API that it makes; whether it went well.
    async fn pveum(&self, words: &[String]) -> bool {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let [program, object, verb, rest @ ..] = words.as_slice() else {
            panic!("{words:?} is no pveum command");
        };
        assert_eq!(*program, "pveum", "{words:?}");
        let taken = if (*object, *verb) == ("user", "token") { 3 } else { 1 };
        let (arguments, options) = rest.split_at(taken);
        assert!(options.len().is_multiple_of(2), "{words:?}");
        let params: Vec<(&str, &str)> = options
            .chunks(2)
            .map(|pair| (pair[0].strip_prefix("--").expect("an option"), pair[1]))
            .collect();
        let with = |first: (&'static str, &str)| {
            let mut all: Vec<(&str, String)> = vec![(first.0, first.1.to_owned())];
            all.extend(params.iter().map(|(k, v)| (*k, (*v).to_owned())));
            all
        };
        let (method, path, params) = match (*object, *verb, arguments) {
            ("role", "add", [role]) => (Method::POST, "/access/roles".to_owned(), with(("roleid", role))),
            ("role", "modify", [role]) => {
                let mut params = with(("", ""));
                params.remove(0);
                (Method::PUT, format!("/access/roles/{role}"), params)
            }
            ("acl", "modify", [path]) => (Method::PUT, "/access/acl".to_owned(), with(("path", path))),
            // They are there already, so that the secret is known.
            ("user", "add", [user]) => {
                assert_eq!(*user, "packer@pve");
                return true;
            }
            ("user", "token", ["add", user, name]) => {
                assert_eq!(format!("{user}!{name}"), TOKEN);
                return true;
            }
            _ => panic!("{words:?} is not known here"),
        };
        match self.root.request(method, &path, &params).await {
            Ok(_) => true,
            Err(error) => {
                assert!(format!("{error:?}").contains("already exists"), "{words:?}: {error:?}");
                false
            }
        }
    }

    /// Gives the token exactly these grants, each by its own role.
    pub(crate) async fn give(&self, grants: &[Grant]) {
        for (index, grant) in grants.iter().enumerate() {
            let role = format!("Given{index}");
            let privileges = grant.privileges.join(",");
            self.post("/access/roles", &[("roleid", &role), ("privs", &privileges)])
                .await;
            let acl = [
                ("path", grant.path.as_str()),
                ("users", "packer@pve"),
                ("tokens", TOKEN),
                ("roles", &role),
            ];
            self.call(Method::PUT, "/access/acl", &acl).await.unwrap();
        }
    }

    /// Sets what the role of a grant holds.
    pub(crate) async fn hold(&self, index: usize, privileges: &[&str]) {
        let path = format!("/access/roles/Given{index}");
        let privileges = privileges.join(",");
        self.call(Method::PUT, &path, &[("privs", &privileges)]).await.unwrap();
    }

    pub(crate) async fn plan(&self, spec: &ImageSpec) -> PlanReport {
        image_build::plan(&self.lab.client, spec).await.unwrap()
    }

    /// Undoes what a printed line gave.
    pub(crate) async fn take_back(&self, grant: &Grant) {
        let acl = [
            ("path", grant.path.as_str()),
            ("users", "packer@pve"),
            ("tokens", TOKEN),
            ("roles", &grant.role),
            ("delete", "1"),
        ];
        self.call(Method::PUT, "/access/acl", &acl).await.unwrap();
        self.call(Method::DELETE, &format!("/access/roles/{}", grant.role), &[])
            .await
            .unwrap();
    }
}
