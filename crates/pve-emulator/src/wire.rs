//! How PVE's HTTP looks: parameters in, replies out, multipart uploads.

mod failure;
mod multipart;
mod params;
mod reply;
mod sent;

pub(crate) use failure::{Failure, Shape};
pub(crate) use multipart::{TemporaryFile, Upload, UploadError, receive as receive_upload};
pub(crate) use params::{Params, parse_form, parse_json};
pub(crate) use reply::{Answer, Body, Format, respond, respond_failure};
pub(crate) use sent::{Sent, compress, cut, whole};
