//! The DoH front against real TLS clients.
