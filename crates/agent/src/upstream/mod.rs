//! Who is asked: brokers over DNS-over-HTTPS with our certificate, and plain resolvers for all that is private to nobody.

pub mod doh;
pub mod federation;
pub mod plain;
