//! Split debug info (`-gsplit-dwarf`): a program has addresses and lines; what its functions are is in a `.dwo` file for each unit, or
//! in one `.dwp` beside the program. Both say by a number (the dwo id) which unit they are of.

use super::{PagedReader, Sections, section_named};
use crate::debug_files::Place;
use gimli::{DwoId, Reader, SectionId};
use profiler_elf::{Elf, Paged};
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
}

struct Package {
    package: gimli::DwarfPackage<PagedReader>,
    paged: Paging,
}

/// Finds the other halves.
pub(super) struct Splits {
    place: Option<Place>,
    package: Option<Option<Package>>,
    /// Bytes that compressed sections may still take.
    inflated_left: u64,
    missing: u64,
}

impl Splits {
    pub fn new(place: Option<Place>, inflated_left: u64) -> Self {
        Self { place, package: None, inflated_left, missing: 0 }
    }

    /// Sections of the package.
    pub fn paged(&self) -> impl Iterator<Item = &(SectionId, Rc<Paged>)> {
        self.package.iter().flatten().flat_map(|package| &package.paged)
    }

    /// Memory held, bytes.
    pub fn bytes(&self) -> u64 {
        self.paged().map(|(_, paged)| paged.max_bytes()).sum()
    }

    /// Halves that were not found since the last call.
    pub fn take_missing(&mut self) -> u64 {
        std::mem::take(&mut self.missing)
    }

    /// The other half of a unit, if it is found.
    pub fn find(&mut self, main: &Sections, skeleton: &gimli::Unit<PagedReader>) -> Option<Split> {
        let id = skeleton.dwo_id?;
        let found = self.in_package(main, skeleton, id).or_else(|| self.in_file(main, skeleton, id));
        self.missing += u64::from(found.is_none());
        found
    }

    fn in_package(&mut self, main: &Sections, skeleton: &gimli::Unit<PagedReader>, id: DwoId) -> Option<Split> {
        if self.package.is_none() {
            let opened = self.open_package();
            self.package = Some(opened);
        }
        let package = self.package.as_ref()?.as_ref()?;
        let sections = package.package.find_cu(id, main).ok()??;
        split(sections, skeleton, id, Vec::new())
    }

    fn open_package(&mut self) -> Option<Package> {
        let place = self.place.as_ref()?;
        let mut path = place.path.clone().into_os_string();
        path.push(".dwp");
        let left = &mut self.inflated_left;
        place.find(&[PathBuf::from(path)], |elf| {
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
            Some(Package { package, paged })
        })
    }

    fn in_file(&mut self, main: &Sections, skeleton: &gimli::Unit<PagedReader>, id: DwoId) -> Option<Split> {
        let place = self.place.as_ref()?;
        let name = skeleton.dwo_name().ok()??;
        let name = main.attr_string(skeleton, name).ok()?.to_string_lossy().ok()?.into_owned();
        let directory = skeleton.comp_dir.as_ref().and_then(|dir| Some(dir.to_string_lossy().ok()?.into_owned()));
        // Where it was compiled; and beside the program, where whoever moves programs puts it.
        let beside = place.path.with_file_name(PathBuf::from(&name).file_name()?);
        let candidates = [PathBuf::from(directory.unwrap_or_default()).join(&name), beside];
        let left = &mut self.inflated_left;
        place.find(&candidates, |elf: Elf| {
            let mut paged = Vec::new();
            let load = |id: SectionId| {
                let name = id.dwo_name().unwrap_or_default();
                section_named(&elf, id, name, &mut paged, left)
            };
            let mut sections = Sections::load(load).ok()?;
            limit(&paged);
            sections.make_dwo(main);
            split(sections, skeleton, id, paged)
        })
    }
}

/// The unit of that id, in the sections of it alone.
fn split(sections: Sections, skeleton: &gimli::Unit<PagedReader>, id: DwoId, paged: Paging) -> Option<Split> {
    let mut headers = sections.units();
    while let Ok(Some(header)) = headers.next() {
        // Before version 5 the id is an attribute; type units have none.
        let Ok(mut unit) = sections.unit(header) else { continue };
        if unit.dwo_id == Some(id) {
            unit.copy_relocated_attributes(skeleton);
            if unit.line_program.is_none() {
                // Before version 5 GCC gives a table of files without saying so.
                let (size, directory, name) = (unit.header.address_size(), unit.comp_dir.clone(), unit.name.clone());
                unit.line_program = sections.debug_line.program(gimli::DebugLineOffset(0), size, directory, name).ok();
            }
            let bytes = paged.iter().map(|(_, paged)| paged.max_bytes()).sum();
            return Some(Split { sections: Rc::new(sections), unit, paged, bytes });
        }
    }
    None
}
