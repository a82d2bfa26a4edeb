//! One request: faults, formatter, dispatch, answer.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::header::TRANSFER_ENCODING;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::body::read_body;
use super::{HangUp, RequestRecord, Server};
use crate::api::{self, Call};
use crate::faults::FaultAction;
use crate::schema::Permissions;
use crate::state::Identity;
use crate::wire::{Answer, Body, Failure, Format, Params, Shape, parse_form, respond, respond_failure};

/// How many requests the log for tests remembers.
const MAX_RECORDS: usize = 20_000;

impl Server {
    pub(super) async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>, HangUp> {
        let method = request.method().clone();
        let decoded = percent_decode_str(request.uri().path())
            .decode_utf8_lossy()
            .into_owned();
        let (format, path) = split_path(&decoded);
        let (index, fault) = self.world.faults.take(method.as_str(), &path);
        let mut record = RequestRecord {
            index,
            method: method.to_string(),
            path: path.clone(),
            user: None,
            status: 0,
        };
        let result = match fault {
            Some(FaultAction::Refuse) => Err(Failure::new(0, "").with_shape(Shape::HangUp)),
            Some(FaultAction::Status(status, reason)) => Err(Failure::new(status, reason).with_shape(Shape::Empty)),
            Some(FaultAction::LoseAnswer) => {
                let _lost = self.answer(request, &format, &path, &mut record).await;
                Err(Failure::new(0, "").with_shape(Shape::HangUp))
            }
            Some(FaultAction::Delay(time)) => {
                tokio::time::sleep(time).await;
                self.answer(request, &format, &path, &mut record).await
            }
            None => self.answer(request, &format, &path, &mut record).await,
        };
        let format = format.unwrap_or(Format::Json);
        let response = match result {
            Ok(answer) => Some(respond(answer, format)),
            Err(failure) => {
                if failure.delayed {
                    let time = if failure.shape == Shape::HangUp { 5 } else { 3 };
                    self.world.delay(Duration::from_secs(time)).await;
                }
                respond_failure(&failure, format)
            }
        };
        record.status = response.as_ref().map_or(0, |r| r.status().as_u16());
        tracing::debug!(method = %record.method, path = %record.path, status = record.status, "request");
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() == MAX_RECORDS {
            records.pop_front();
        }
        records.push_back(record);
        response.ok_or(HangUp)
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        format: &Result<Format, String>,
        path: &str,
        record: &mut RequestRecord,
    ) -> Result<Answer, Failure> {
        let method = request.method().clone();
        if ![Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&method) {
            return Err(Failure::new(501, format!("method '{method}' not available")).with_shape(Shape::Empty));
        }
        if request.headers().contains_key(TRANSFER_ENCODING) {
            return Err(Failure::new(501, "chunked transfer encoding not supported").with_shape(Shape::Text));
        }
        let found = self.world.settings.schema().find(method.as_str(), path);
        let world_may = found
            .as_ref()
            .is_some_and(|f| matches!(f.endpoint.permissions, Permissions::World));
        let is_upload = found.as_ref().is_some_and(|f| f.endpoint.key.ends_with("/upload"));
        let who = self.authenticate(request.headers(), &method, is_upload);
        let who = match who {
            Ok(who) => Some(who),
            Err(_) if world_may => None,
            Err(failure) => return Err(failure),
        };
        record.user = who.as_ref().map(Identity::full);
        if let Err(other) = format {
            return Err(Failure::new(501, format!("no formatter for uri {path}, {other}")).with_shape(Shape::Text));
        }
        let Some(found) = found else {
            tracing::warn!(%method, path, "unknown call");
            return Err(Failure::not_implemented(method.as_str(), path));
        };
        let mut params = Params::default();
        parse_form(request.uri().query().unwrap_or_default(), &mut params);
        for (key, value) in &found.path {
            params.set(key, value.clone());
        }
        let endpoint = found.endpoint;
        if who.as_ref().is_some_and(|w| w.token.is_some()) && !endpoint.allow_token {
            return Err(Failure::permission(&format!(
                "URI '{path}' not available with API token, need proper ticket.\n"
            )));
        }
        let who = who.unwrap_or_else(|| Identity {
            user: "nobody@none".into(),
            token: None,
        });
        let mut call = Call {
            world: Arc::clone(&self.world),
            who,
            params,
            upload: None,
        };
        if is_upload {
            // Rights are checked before the body is read (FACTS 3, 22).
            api::check_permission(endpoint, &call).map_err(|f| f.with_shape(Shape::Empty).delayed())?;
            self.read_upload(request, &mut call).await?;
        } else {
            read_body(request, &method, &mut call.params).await?;
            for (key, value) in &found.path {
                call.params.set(key, value.clone());
            }
            api::check_permission(endpoint, &call)?;
        }
        api::dispatch(&self.routes, endpoint, call).await
    }
}

/// The formatter and the path below it; a formatter that is not served comes back by its name.
fn split_path(path: &str) -> (Result<Format, String>, String) {
    let rest = path.strip_prefix("/api2/").unwrap_or_default();
    let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
    let format = match name {
        "json" => Ok(Format::Json),
        "extjs" => Ok(Format::Extjs),
        other => Err(other.to_owned()),
    };
    (format, format!("/{}", below.trim_end_matches('/')))
}
