//! An engine that can be exchanged for another while readers hold it: a standby that takes a copy of its primary's store.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Batch, Engine, EngineError, EngineKind, Table, Visit};

/// The engine of now. Each call goes to one engine from its beginning to its end.
pub struct Switch(RwLock<Arc<dyn Engine>>);

impl Switch {
    /// Begins with one.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self(RwLock::new(engine))
    }

    /// Goes on with another.
    pub fn set(&self, engine: Arc<dyn Engine>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    fn now(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine for Switch {
    fn kind(&self) -> EngineKind {
        self.now().kind()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.now().get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.now().scan(table, from, visit)
    }

    fn scan_back(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.now().scan_back(table, from, visit)
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        self.now().commit(batch)
    }
}
