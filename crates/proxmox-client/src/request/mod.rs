//! Requests as values: method, path and parameters, without sending them. Pure.

pub(crate) mod access;
pub(crate) mod agent;
pub(crate) mod clone;
pub(crate) mod cluster;
pub(crate) mod config;
#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod console;
pub(crate) mod multipart;
pub(crate) mod node;
pub(crate) mod path;
pub(crate) mod power;
pub(crate) mod qemu;
pub(crate) mod storage;
pub(crate) mod task;
pub(crate) mod vm_option;

use http::Method;

use crate::error::Error;

/// One call of the API, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Below `/api2/json`, percent-encoded.
    pub(crate) path: String,
    /// In their order; a name may repeat, which PVE reads as a list (`FACTS` 27).
    pub(crate) params: Vec<(String, String)>,
    /// May it be sent again when its answer was lost?
    pub(crate) repeatable: bool,
}

/// Without the values: a login's are its password.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.params.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("params", &names)
            .field("repeatable", &self.repeatable)
            .finish()
    }
}

impl Request {
    pub(crate) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            params: Vec::new(),
            repeatable: true,
        }
    }

    pub(crate) fn post(path: String) -> Self {
        Self {
            method: Method::POST,
            path,
            params: Vec::new(),
            repeatable: false,
        }
    }

    pub(crate) fn put(path: String) -> Self {
        Self {
            method: Method::PUT,
            path,
            params: Vec::new(),
            repeatable: false,
        }
    }

    pub(crate) fn delete(path: String) -> Self {
        Self {
            method: Method::DELETE,
            path,
            params: Vec::new(),
            repeatable: false,
        }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over numbers, names and texts alike"
    )]
    pub(crate) fn param(mut self, name: &str, value: impl ToString) -> Self {
        self.params.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        self.param(name, u8::from(value))
    }

    pub(crate) fn optional(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.param(name, value),
            None => self,
        }
    }

    /// For a read whose answer can be had only once.
    pub(crate) fn only_once(mut self) -> Self {
        self.repeatable = false;
        self
    }

    /// A call that this crate has no type for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path or method that PVE cannot have.
    pub(crate) fn raw(method: Method, path: &str, params: &[(&str, String)]) -> Result<Self, Error> {
        if ![Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&method) {
            return Err(Error::invalid(
                "method",
                format!("{method} is not used by the PVE API: GET, POST, PUT or DELETE"),
            ));
        }
        let repeatable = method == Method::GET;
        let params = params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        Ok(Self {
            method,
            path: path::checked(path)?,
            params,
            repeatable,
        })
    }

    /// GET and DELETE take parameters in the query only: a body is 501 there (`FACTS` 16).
    pub(crate) fn params_in_query(&self) -> bool {
        self.method == Method::GET || self.method == Method::DELETE
    }

    /// The path with its query.
    pub(crate) fn path_and_query(&self) -> String {
        if self.params_in_query() && !self.params.is_empty() {
            format!("{}?{}", self.path, encode_pairs(&self.params))
        } else {
            self.path.clone()
        }
    }

    /// The form body; `None` where the parameters travel in the query.
    pub(crate) fn form(&self) -> Option<String> {
        (!self.params_in_query()).then(|| encode_pairs(&self.params))
    }
}

/// `a=b&c=d`, percent-encoded; a space as `%20`, which both a query and a form body understand.
fn encode_pairs(pairs: &[(String, String)]) -> String {
    let encoded: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", path::encode(name), path::encode(value)))
        .collect();
    encoded.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_where_pve_takes_them() {
        let get = Request::get("/a".into()).param("content", "iso").param("x y", "ä&=+");
        assert_eq!(get.path_and_query(), "/a?content=iso&x%20y=%C3%A4%26%3D%2B");
        assert_eq!(get.form(), None);
        let post = Request::post("/a".into())
            .flag("full", true)
            .param("command", "a")
            .param("command", "b");
        assert_eq!(post.path_and_query(), "/a");
        assert_eq!(post.form().as_deref(), Some("full=1&command=a&command=b"));
        assert_eq!(Request::put("/a".into()).form().as_deref(), Some(""));
        assert_eq!(
            Request::delete("/a".into()).flag("purge", true).path_and_query(),
            "/a?purge=1"
        );
    }

    #[test]
    fn raw_calls_are_checked() {
        let params = [("a", "1".to_owned())];
        let raw = Request::raw(Method::GET, "/nodes/pve/qemu", &params).expect("a good path");
        assert_eq!(
            (raw.path_and_query().as_str(), raw.repeatable),
            ("/nodes/pve/qemu?a=1", true)
        );
        assert!(!Request::raw(Method::POST, "/x", &[]).expect("a good path").repeatable);
        for (method, path) in [
            (Method::PATCH, "/x"),
            (Method::GET, "x"),
            (Method::GET, "/x?y=1"),
            (Method::GET, "/a/../b"),
            (Method::GET, "/a#b"),
            (Method::GET, "/a\nb"),
            (Method::GET, "/%2e%2e/b"),
        ] {
            assert!(Request::raw(method.clone(), path, &[]).is_err(), "{method} {path:?}");
        }
    }
}
