//! Paths of mapped files, each kept once.

use std::sync::Arc;

use rustc_hash::FxHashSet;

/// Bytes of paths kept. A path beyond it is empty, and its file reached only through the process.
const MAX_PATH_BYTES: usize = 8 << 20;

/// One copy of each path: all processes of a host map the same few hundred files.
#[derive(Debug, Default)]
pub(super) struct PathInterner {
    paths: FxHashSet<Arc<[u8]>>,
    /// Bytes kept.
    pub(super) bytes: usize,
    sweep_at: usize,
}

impl PathInterner {
    /// The shared copy of `path`; beyond the budget that of the empty path.
    pub(super) fn intern(&mut self, path: &[u8]) -> Arc<[u8]> {
        // The set's own slot, and the two counts before the bytes.
        const OVERHEAD: usize = 40;
        if let Some(known) = self.paths.get(path) {
            return Arc::clone(known);
        }
        if self.bytes >= self.sweep_at {
            self.paths.retain(|path| Arc::strong_count(path) > 1);
            self.bytes = self.paths.iter().map(|path| path.len() + OVERHEAD).sum();
            // Never so soon again that sweeping would be what the time goes to.
            self.sweep_at = (2 * self.bytes).clamp(64 << 10, MAX_PATH_BYTES).max(self.bytes + (64 << 10));
        }
        let path = if self.bytes > MAX_PATH_BYTES { b"" } else { path };
        if let Some(known) = self.paths.get(path) {
            return Arc::clone(known);
        }
        let path: Arc<[u8]> = Arc::from(path);
        self.bytes += path.len() + OVERHEAD;
        self.paths.insert(Arc::clone(&path));
        path
    }
}
