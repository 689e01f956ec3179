//! The targets, by what they parse.

pub(crate) mod descriptor;
pub(crate) mod handshake;
pub(crate) mod messages;
pub(crate) mod read_stream;
pub(crate) mod report;
pub(crate) mod seal;
