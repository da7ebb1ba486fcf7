//! To be filled: webhooks.
