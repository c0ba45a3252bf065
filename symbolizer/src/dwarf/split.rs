//! Split debug info (`-gsplit-dwarf`): a program has addresses and lines; what its functions are is in a `.dwo` file for each unit, or
//! in one `.dwp` beside the program. Both say by a number (the dwo id) which unit they are of.

use super::{
    PagedReader, Sections,
    bounds::{self, Bounds},
    debug_bytes, section_named, unit,
};
use crate::{debug_files::Place, symbolizer::Stats};
use gimli::{DwoId, Reader, SectionId};
use profiler_elf::{Elf, Paged};
use rustc_hash::FxHashSet;
use std::{path::PathBuf, rc::Rc};

type Paging = Vec<(SectionId, Rc<Paged>)>;

/// What was just opened may be read as far as one lookup goes.
fn limit<'a>(paged: impl IntoIterator<Item = &'a (SectionId, Rc<Paged>)>) {
    for (id, section) in paged {
        section.set_work(match id {
            SectionId::DebugAbbrev => super::ABBREVIATION_WORK,
            SectionId::DebugLine => super::LINE_WORK,
            _ => super::LOOKUP_WORK,
        });
    }
}

/// The other half of a unit.
pub(super) struct Split {
    pub sections: Rc<Sections>,
    pub unit: gimli::Unit<PagedReader>,
    /// Sections of its own file; none of a package, which has them itself.
    pub paged: Paging,
    /// Memory held, bytes.
    pub bytes: u64,
    /// What it took of the bounds, to be given back: bytes of sections, and of those that were unpacked.
    taken: (u64, u64),
}

/// Whether a file of split debug info could be used.
enum Found<T> {
    Here(T),
    TooLarge,
    Not,
}

struct Package {
    package: gimli::DwarfPackage<PagedReader>,
    paged: Paging,
}

/// Finds the other halves.
pub(super) struct Splits {
    place: Option<Place>,
    package: Option<Option<Package>>,
    bounds: Bounds,
    /// Bytes that sections may still have.
    sections_left: u64,
    /// Bytes that compressed sections may still take.
    inflated_left: u64,
    /// Units whose halves are not to be had: they are told and looked for once.
    without: FxHashSet<u64>,
    missing: u64,
    too_large: u64,
}

impl Splits {
    pub fn new(place: Option<Place>, bounds: Bounds, sections_left: u64, inflated_left: u64) -> Self {
        let without = FxHashSet::default();
        Self { place, package: None, bounds, sections_left, inflated_left, without, missing: 0, too_large: 0 }
    }

    /// Sections of the package.
    pub fn paged(&self) -> impl Iterator<Item = &(SectionId, Rc<Paged>)> {
        self.package.iter().flatten().flat_map(|package| &package.paged)
    }

    /// Memory held, bytes.
    pub fn bytes(&self) -> u64 {
        self.paged().map(|(_, paged)| paged.max_bytes()).sum::<u64>() + self.without.len() as u64 * 16
    }

    /// Counts the halves that were not found, or too large, since the last call.
    pub fn count(&mut self, stats: &mut Stats) {
        stats.dwo_missing += std::mem::take(&mut self.missing);
        stats.dwarf_too_large += std::mem::take(&mut self.too_large);
    }

    /// The other half of a unit, if it is found.
    pub fn find(&mut self, main: &Sections, skeleton: &gimli::Unit<PagedReader>) -> Option<Split> {
        let id = skeleton.dwo_id?;
        if self.without.contains(&id.0) {
            return None;
        }
        if let Some(found) = self.in_package(main, skeleton, id) {
            return Some(found);
        }
        match self.in_file(main, skeleton, id) {
            Found::Here(found) => return Some(found),
            Found::TooLarge => self.too_large += 1,
            // A package that is too large was told when it was looked into.
            Found::Not => self.missing += 1,
        }
        self.without.insert(id.0);
        None
    }

    /// What is left of the bounds: bytes of sections, and of those that are unpacked.
    #[cfg(test)]
    pub const fn left(&self) -> (u64, u64) {
        (self.sections_left, self.inflated_left)
    }

    /// Takes back what a half took of the bounds.
    pub fn close(&mut self, split: &Split) {
        self.sections_left += split.taken.0;
        self.inflated_left += split.taken.1;
    }

    fn in_package(&mut self, main: &Sections, skeleton: &gimli::Unit<PagedReader>, id: DwoId) -> Option<Split> {
        if self.package.is_none() {
            let opened = self.open_package();
            self.package = Some(opened);
        }
        let package = self.package.as_ref()?.as_ref()?;
        let sections = package.package.find_cu(id, main).ok()??;
        split(sections, skeleton, id, Vec::new(), self.bounds, (0, 0))
    }

    fn open_package(&mut self) -> Option<Package> {
        let place = self.place.as_ref()?;
        let mut path = place.path.clone().into_os_string();
        path.push(".dwp");
        let (left, sections_left, too_large) = (&mut self.inflated_left, &mut self.sections_left, &mut self.too_large);
        place.find(&[PathBuf::from(path)], |elf| {
            let Some(rest) = sections_left.checked_sub(debug_bytes(&elf)) else {
                *too_large += 1;
                return None;
            };
            let mut paged = Vec::new();
            let empty = PagedReader::new(Rc::new(Paged::empty()), 0);
            let load = |id: SectionId| match id.dwo_name() {
                Some(name) => {
                    let section = section_named(&elf, id, name, &mut paged, left);
                    limit(paged.last());
                    section
                }
                None => Ok(empty.clone()),
            };
            let package = gimli::DwarfPackage::load(load, empty.clone());
            let package = package.inspect_err(|error| tracing::debug!(%error, "package of split debug info not read"));
            let package = package.ok()?;
            *sections_left = rest;
            Some(Package { package, paged })
        })
    }

    fn in_file(&mut self, main: &Sections, skeleton: &gimli::Unit<PagedReader>, id: DwoId) -> Found<Split> {
        let Some((place, candidates)) = self.place.as_ref().zip(self.candidates(main, skeleton)) else {
            return Found::Not;
        };
        let (sections_left, inflated_left, bounds) = (self.sections_left, self.inflated_left, self.bounds);
        let mut too_large = false;
        let found = place.find(&candidates, |elf: Elf| {
            let size = debug_bytes(&elf);
            let (mut paged, mut left) = (Vec::new(), inflated_left);
            if size > sections_left {
                too_large = true;
                return None;
            }
            let load = |id: SectionId| {
                let name = id.dwo_name().unwrap_or_default();
                section_named(&elf, id, name, &mut paged, &mut left)
            };
            let mut sections = match Sections::load(load) {
                Ok(sections) => sections,
                Err(error) => {
                    too_large |= error.is_too_large();
                    return None;
                }
            };
            limit(&paged);
            sections.make_dwo(main);
            split(sections, skeleton, id, paged, bounds, (size, inflated_left - left))
        });
        match found {
            Some(found) => {
                self.sections_left -= found.taken.0;
                self.inflated_left -= found.taken.1;
                Found::Here(found)
            }
            None if too_large => Found::TooLarge,
            None => Found::Not,
        }
    }

    /// Where the file of a unit's other half may be: where it was compiled; and beside the program, where whoever moves programs puts it.
    fn candidates(&self, main: &Sections, skeleton: &gimli::Unit<PagedReader>) -> Option<[PathBuf; 2]> {
        let name = skeleton.dwo_name().ok()??;
        let name = main.attr_string(skeleton, name).ok()?.to_string_lossy().ok()?.into_owned();
        let directory = skeleton.comp_dir.as_ref().and_then(|dir| Some(dir.to_string_lossy().ok()?.into_owned()));
        let beside = self.place.as_ref()?.path.with_file_name(PathBuf::from(&name).file_name()?);
        Some([PathBuf::from(directory.unwrap_or_default()).join(&name), beside])
    }
}

/// The unit of that id, in the sections of it alone.
fn split(
    sections: Sections,
    skeleton: &gimli::Unit<PagedReader>,
    id: DwoId,
    paged: Paging,
    bounds: Bounds,
    taken: (u64, u64),
) -> Option<Split> {
    let mut headers = sections.units();
    while let Ok(Some(header)) = headers.next() {
        // Before version 5 the id is an attribute; type units have none.
        let Ok(mut unit) = bounds::read_unit(&sections, header, bounds.files) else { continue };
        if unit.dwo_id == Some(id) {
            unit.copy_relocated_attributes(skeleton);
            let first = gimli::DebugLineOffset(0);
            if unit.line_program.is_none() && bounds::check_files(&sections, first, bounds.files).is_ok() {
                // Before version 5 GCC gives a table of files without saying so.
                let (size, directory, name) = (unit.header.address_size(), unit.comp_dir.clone(), unit.name.clone());
                unit.line_program = sections.debug_line.program(first, size, directory, name).ok();
            }
            let bytes = paged.iter().map(|(_, paged)| paged.max_bytes()).sum::<u64>() + unit::files_bytes(&unit);
            return Some(Split { sections: Rc::new(sections), unit, paged, bytes, taken });
        }
    }
    None
}
