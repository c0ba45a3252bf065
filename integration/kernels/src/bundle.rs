//! The same files in a folder, for machines that are not booted from an initramfs: Vagrant's.

use std::fs;
use std::path::Path;

use profiler_integration::children;

use crate::error::Error;
use crate::image::File;

/// Lays `files` out below `folder`, anew.
///
/// # Errors
/// A file cannot be copied.
pub fn write(folder: &Path, files: &[File]) -> Result<(), Error> {
    let _ = fs::remove_dir_all(folder);
    for file in files.iter().filter(|file| file.path != "init") {
        let to = folder.join(&file.path);
        let parent = to.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        children::copy_program(&file.from, &to)?;
    }
    Ok(())
}
