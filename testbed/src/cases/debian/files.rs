//! What no shell command shows of files: databases, mappings, locks, files without a name.

use std::fs;

use anyhow::Result;

use super::Work;
use crate::bed::Bed;

/// In the root and in a share of each cache.
pub(super) fn files_serve_databases_mappings_and_locks_with_every_cache(bed: &Bed) -> Result<()> {
    let work = Work::new(bed)?;
    fs::write(work.path("files.py"), include_str!("guest/files.py"))?;
    fs::create_dir(work.path("root"))?;
    let mut guest = work.guest(bed, "python3 -ISB files.py root /none /auto /always")?;
    for cache in ["none", "auto", "always"] {
        let folder = work.path(cache);
        fs::create_dir(&folder)?;
        guest = guest.with(["-v", &format!("{}:/{cache}:cache={cache}", folder.display())]);
    }
    guest.run()?.expect_code(0)?.expect_text(&"sound\n".repeat(4))?;
    Ok(())
}
