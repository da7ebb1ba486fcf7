//! Scale (to come).
