//! Exporters, spool and files, against receivers of their own.

mod files;
mod grpc;
mod http;
#[path = "../../../formats/tests/it/profiles.rs"]
mod profiles;
mod receivers;
mod spool_exporter;
mod spool_records;
mod tls;
