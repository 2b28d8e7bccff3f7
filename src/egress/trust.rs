//! The certificates that an egress trusts in addition to the system's.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use rustls::pki_types::CertificateDer;
use tokio::sync::OnceCell;

pub(crate) type Certificates = Arc<[CertificateDer<'static>]>;

/// The trusted certificates, and what was made of them.
pub(super) struct Trust<C> {
    /// The base's certificates are trusted as well, now and after changes.
    base: Option<Arc<Self>>,
    state: RwLock<State<C>>,
}

struct State<C> {
    own: Certificates,
    /// The number of times that `own` was replaced.
    changes: u64,
    /// Made on first use.
    made: Arc<OnceCell<Arc<C>>>,
    /// The number of times that the base's certificates had been replaced when `made` was made.
    base_changes: u64,
}

impl<C> Trust<C> {
    pub(super) fn new(own: Certificates, base: Option<Arc<Self>>) -> Self {
        let state = State { own, changes: 0, made: Arc::default(), base_changes: 0 };
        Self { base, state: RwLock::new(state) }
    }

    /// Replaces our own certificates with `own`.
    pub(super) fn replace(&self, own: Certificates) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.own = own;
        state.changes += 1;
        state.made = Arc::default();
    }

    /// All certificates that are trusted now.
    pub(super) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let mut certificates = self.base.as_ref().map(|base| base.certificates()).unwrap_or_default();
        certificates.extend_from_slice(&self.state().own);
        certificates
    }

    /// The cell for what is made of the current certificates. Initialise it with certificates that are read
    /// after this call: an outdated cell is not used again.
    pub(super) fn made(&self) -> Arc<OnceCell<Arc<C>>> {
        let base_changes = self.base_changes();
        {
            let state = self.state();
            if state.base_changes >= base_changes {
                return Arc::clone(&state.made);
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have replaced it meanwhile.
        if state.base_changes < base_changes {
            state.base_changes = base_changes;
            state.made = Arc::default();
        }
        Arc::clone(&state.made)
    }

    fn base_changes(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.base_changes() + base.state().changes)
    }

    fn state(&self) -> RwLockReadGuard<'_, State<C>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}
