//! A copy of the stores while they are in use.
//!
//! Writers go on: of the keys, what there is of a user is copied at one moment; the copy of the rest is redb's own
//! snapshot of a moment after that, so that who came meanwhile has at least the name. One-time prekeys are left out: the copy must not hand out what was handed out since.
//! Devices upload new ones when they connect.

use std::path::Path;
use std::sync::Arc;

use super::blobs::DiskBlobs;
use super::keys::KeysDb;
use super::main::MainDb;
use super::seal::Seal;
use super::{BLOBS, KEYS, MAIN};
use crate::store::{Loose, Snapshot, StoreError};

pub(super) struct DiskSnapshot {
    pub(super) keys: Arc<KeysDb>,
    pub(super) main: Arc<MainDb>,
    pub(super) blobs: Arc<DiskBlobs>,
}

impl Snapshot for DiskSnapshot {
    fn copy_to(&self, folder: &Path) -> Result<Vec<Loose>, StoreError> {
        // Their chunks are on disk before the map that speaks of them is copied.
        self.blobs.checkpoint_all()?;
        let seal = Arc::new(Seal::lift(folder)?);
        let keys = KeysDb::open(&folder.join(KEYS), true, &seal)?;
        self.keys.copy_to(&keys)?;
        keys.prepare()?;
        let moment = self.main.moment()?;
        let main = MainDb::open(&folder.join(MAIN), &seal)?;
        moment.copy_to(&main)?;
        main.prepare()?;
        let loose = main.blobs()?.into_iter().flat_map(|(id, ..)| {
            // The map first: the bytes it speaks of are there by then. A blob that is complete has none.
            [format!("{}.map", id.to_hex()), id.to_hex()].map(|name| Loose {
                path: self.blobs.folder().join(&name),
                name: format!("{BLOBS}/{name}"),
            })
        });
        let loose = loose.collect();
        seal.is_open();
        Ok(loose)
    }
}
