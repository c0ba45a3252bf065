//! Notices that files of the configuration changed.
//!
//! Looks rather than listens: a ConfigMap changes by the swap of a symbolic link two folders away, editors write another
//! file and rename it, network file systems tell nothing. A look costs one `stat` a file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::{read_bytes, yaml};

/// What a look at the files told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The content is another, and has been the same for two looks: nobody is writing it now.
    Changed,
    /// A file is gone, which is said once. It may be on its way; what runs had better go on.
    Gone,
}

/// Watches the files of a configuration. Ask it about once a second.
#[derive(Debug)]
pub struct Watcher {
    files: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// The content that the caller knows of.
    known: Content,
    /// Another content, which the last look saw.
    pending: Option<Content>,
    /// The stamp that `known` has for certain.
    settled: Option<Stamp>,
    gone: bool,
}

/// None: it cannot be read or is too large, which loading will tell.
type Content = Option<Vec<u8>>;

/// Another stamp, and the content may be another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

impl Stamp {
    /// Kernels before 6.13 stamp by the tick: what is written right after a look may have the stamp of that look.
    fn is_certain(&self) -> bool {
        let changed = u64::try_from(self.changed.0).map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > Duration::from_secs(2)))
    }
}

impl Watched {
    fn new(path: &Path) -> Self {
        let mut watched = Self { path: path.to_owned(), known: None, pending: None, settled: None, gone: false };
        watched.learn();
        watched
    }

    /// What is there now is known.
    fn learn(&mut self) {
        // The stamp first: a change in between shows at the next look.
        let stamp = stamp(&self.path);
        self.gone = stamp.is_none();
        self.known = if self.gone { None } else { content(&self.path) };
        self.settled = stamp.filter(Stamp::is_certain);
        self.pending = None;
    }

    fn look(&mut self) -> Option<Change> {
        let Some(stamp) = stamp(&self.path) else {
            let said = std::mem::replace(&mut self.gone, true);
            (self.settled, self.pending) = (None, None);
            return (!said).then_some(Change::Gone);
        };
        self.gone = false;
        if self.settled == Some(stamp) {
            return None;
        }
        let content = content(&self.path);
        if content != self.known && self.pending.as_ref() != Some(&content) {
            self.pending = Some(content);
            return None;
        }
        self.pending = None;
        self.settled = Some(stamp).filter(Stamp::is_certain);
        if content == self.known {
            return None;
        }
        self.known = content;
        Some(Change::Changed)
    }
}

fn content(path: &Path) -> Content {
    // Whose it is, loading tells.
    read_bytes(path, None).ok().filter(|bytes| bytes.len() <= yaml::MAX_BYTES)
}

impl Watcher {
    /// Watches `files`; what they hold now is known. [`Loaded::watcher`](super::Loaded::watcher) is made before the files
    /// are read, and so misses nothing.
    #[must_use]
    pub fn new<P: AsRef<Path>>(files: &[P]) -> Self {
        Self { files: files.iter().map(|path| Watched::new(path.as_ref())).collect() }
    }

    /// Watches `files` from now on: those of a new configuration. What is known of files that were watched before stays.
    pub fn watch<P: AsRef<Path>>(&mut self, files: &[P]) {
        self.files.retain(|watched| files.iter().any(|path| path.as_ref() == watched.path));
        for path in files {
            if !self.files.iter().any(|watched| watched.path == path.as_ref()) {
                self.files.push(Watched::new(path.as_ref()));
            }
        }
    }

    /// What is there now is known: after a reload for another reason, such as a signal.
    pub fn learn(&mut self) {
        for watched in &mut self.files {
            watched.learn();
        }
    }

    /// Looks. A change is told once, whether or not what is there now can be used.
    pub fn poll(&mut self) -> Option<Change> {
        // Each file is looked at, whatever the others tell.
        let told: Vec<Change> = self.files.iter_mut().filter_map(Watched::look).collect();
        told.iter().copied().find(|change| *change == Change::Changed).or(told.first().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two looks, as two seconds would bring.
    fn settled(watcher: &mut Watcher) -> Vec<Change> {
        let changes = [watcher.poll(), watcher.poll()];
        changes.into_iter().flatten().collect()
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).expect("written");
    }

    #[test]
    fn a_file_in_peace_has_not_changed() {
        let folder = folder();
        let path = folder.path().join("c.yaml");
        write(&path, "rate: 49\n");
        let mut watcher = Watcher::new(&[&path]);
        assert_eq!([settled(&mut watcher), settled(&mut watcher)], [[], []]);
        // Written again, and the same.
        write(&path, "rate: 49\n");
        assert_eq!(settled(&mut watcher), []);
    }

    #[test]
    fn every_way_to_write_a_file_is_noticed_once() {
        let folder = folder();
        let path = folder.path().join("c.yaml");
        write(&path, "rate: 49\n");
        let mut watcher = Watcher::new(&[&path]);
        write(&path, "rate: 19\n");
        assert_eq!(settled(&mut watcher), [Change::Changed]);
        assert_eq!(settled(&mut watcher), []);
        // Another file takes its name, with the same size.
        let other = folder.path().join("c.yaml.new");
        write(&other, "rate: 29\n");
        fs::rename(&other, &path).expect("renamed");
        assert_eq!(settled(&mut watcher), [Change::Changed]);
        assert_eq!(settled(&mut watcher), []);
    }

    /// ```text
    /// c.yaml -> ..data/c.yaml     ..data -> ..2026_1/     and then: ..data -> ..2026_2/
    /// ```
    #[test]
    fn a_config_map_is_noticed() {
        let folder = folder();
        let root = folder.path();
        for (version, text) in [("..2026_1", "rate: 49\n"), ("..2026_2", "rate: 19\n")] {
            fs::create_dir(root.join(version)).expect("made");
            write(&root.join(version).join("c.yaml"), text);
        }
        symlink("..2026_1", root.join("..data")).expect("linked");
        symlink("..data/c.yaml", root.join("c.yaml")).expect("linked");
        let mut watcher = Watcher::new(&[root.join("c.yaml")]);
        assert_eq!(settled(&mut watcher), []);
        symlink("..2026_2", root.join("..data_tmp")).expect("linked");
        fs::rename(root.join("..data_tmp"), root.join("..data")).expect("renamed");
        fs::remove_dir_all(root.join("..2026_1")).expect("removed");
        assert_eq!(settled(&mut watcher), [Change::Changed]);
        assert_eq!(settled(&mut watcher), []);
    }

    #[test]
    fn a_file_that_is_being_written_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("c.yaml");
        write(&path, "rate: 49\n");
        let mut watcher = Watcher::new(&[&path]);
        let mut file = fs::File::create(&path).expect("opened");
        for part in ["rate", ": ", "1", "9\n"] {
            file.write_all(part.as_bytes()).expect("written");
            assert_eq!(watcher.poll(), None);
        }
        assert_eq!(watcher.poll(), Some(Change::Changed));
        assert_eq!(settled(&mut watcher), []);
    }

    #[test]
    fn a_file_that_is_gone_is_said_once_and_may_come_back() {
        let folder = folder();
        let path = folder.path().join("c.yaml");
        write(&path, "rate: 49\n");
        let mut watcher = Watcher::new(&[&path]);
        fs::remove_file(&path).expect("removed");
        assert_eq!([settled(&mut watcher), settled(&mut watcher)], [vec![Change::Gone], vec![]]);
        // As it was: nothing to do.
        write(&path, "rate: 49\n");
        assert_eq!(settled(&mut watcher), []);
        fs::remove_file(&path).expect("removed");
        assert_eq!(settled(&mut watcher), [Change::Gone]);
        write(&path, "rate: 19\n");
        assert_eq!(settled(&mut watcher), [Change::Changed]);
        // A folder in its place is no file.
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        assert_eq!(settled(&mut watcher), [Change::Gone]);
    }

    #[test]
    fn files_that_are_put_in_are_watched_too() {
        let folder = folder();
        let [config, token, other] = ["c.yaml", "token", "other"].map(|name| folder.path().join(name));
        for path in [&config, &token, &other] {
            write(path, "1");
        }
        let mut watcher = Watcher::new(&[&config, &token]);
        write(&token, "2");
        assert_eq!(settled(&mut watcher), [Change::Changed]);
        // From now on another one; what changes in between is not missed.
        write(&config, "2");
        watcher.watch(&[&config, &other]);
        assert_eq!(settled(&mut watcher), [Change::Changed]);
        write(&token, "3");
        assert_eq!(settled(&mut watcher), []);
        write(&other, "3");
        watcher.learn();
        assert_eq!(settled(&mut watcher), []);
    }

    #[test]
    fn what_changes_right_after_loading_is_not_missed() {
        let folder = folder();
        let [path, token] = ["c.yaml", "token"].map(|name| folder.path().join(name));
        write(&token, "1\n");
        write(&path, &format!("labels: {{a: '${{file:{}}}'}}", token.display()));
        let flags = super::super::Flags::new(Some(path.clone()));
        let mut loaded = super::super::load_with(&flags, &|_| None).expect("right");
        assert_eq!(loaded.files, [path.clone(), token.clone()]);
        write(&token, "2\n");
        assert_eq!(settled(&mut loaded.watcher), [Change::Changed]);
        write(&path, "rate: 19\n");
        assert_eq!(settled(&mut loaded.watcher), [Change::Changed]);
    }

    #[test]
    fn a_file_that_became_too_large_is_a_change_that_loading_refuses() {
        let folder = folder();
        let path = folder.path().join("c.yaml");
        write(&path, "rate: 49\n");
        let mut watcher = Watcher::new(&[&path]);
        write(&path, &"#".repeat(yaml::MAX_BYTES + 1));
        assert_eq!(settled(&mut watcher), [Change::Changed]);
        assert_eq!(settled(&mut watcher), []);
        write(&path, "rate: 19\n");
        assert_eq!(settled(&mut watcher), [Change::Changed]);
    }
}
