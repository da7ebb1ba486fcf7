//! To be filled: standby.
