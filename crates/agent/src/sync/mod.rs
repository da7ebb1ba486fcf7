//! Devices from a member's own systems to the federation: the whole list at the start and now and then, differences between.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | entries of the configuration |
//! | [`task`] | when to look, what to send, what came of it |
//! | [`source`] | a list from any source |
//! | [`postgres`], [`sqlite`], [`rest`], [`things`], [`zone`] | the sources that are not files or commands |
//!
//! Only DevEUIs are read, never keys: each query names the columns it wants, and a role that may read nothing else is enough.

pub mod config;
pub mod postgres;
pub mod rest;
pub mod source;
pub mod sqlite;
pub mod task;
pub mod things;
pub mod zone;
