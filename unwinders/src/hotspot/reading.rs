//! HotSpot as a runtime among others.

use std::sync::Arc;
use std::time::Duration;

use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;
use profiler_elf::{Elf, MACHINE_X86_64};

use super::attach::{self, attach};
use super::names::{Code, Frame, Names};
use super::symbols::Symbols;
use crate::memory::Memory;
use crate::runtime::{AttachError, Attached, Data, FrameName, MAX_NAMES, Named, Runtime, Target, Tier};

/// A JVM that starts takes some 30 ms to make its interpreter.
const NOT_READY: Duration = Duration::from_millis(20);

/// The reading side of HotSpot.
#[derive(Clone, Copy, Debug)]
pub struct HotSpot;

#[derive(Debug)]
struct Library(Symbols);

impl Runtime for HotSpot {
    fn kind(&self) -> FrameKind {
        FrameKind::HOTSPOT
    }

    fn name(&self) -> &'static str {
        "HotSpot"
    }

    fn mark(&self) -> &'static str {
        "gHotSpotVMStructs"
    }

    fn load(&self, elf: &Elf) -> Result<Arc<dyn Data>, AttachError> {
        if elf.machine() != MACHINE_X86_64 {
            return Err(AttachError::Unsupported("jvm: not supported: HotSpot is followed on x86-64 only".to_owned()));
        }
        let symbols = Symbols::find(elf);
        let symbols =
            symbols.ok_or_else(|| AttachError::Unsupported("jvm: not supported: it lacks tables".to_owned()))?;
        Ok(Arc::new(Library(symbols)))
    }

    fn names(&self, opaque: &[u8], memory: &dyn Memory, frames: &[RuntimeFrame]) -> Vec<Named> {
        let Some(attached) = attach::Attached::parse(&mut &*opaque) else {
            return vec![Err(Arc::from("jvm: not attached")); frames.len()];
        };
        let mut names = attached.names(memory);
        frames.iter().map(|frame| name(&mut names, frame)).collect()
    }
}

impl Data for Library {
    fn attach(&self, target: &mut Target<'_>) -> Result<Attached, AttachError> {
        let attached = attach(target.memory, &self.0, target.bias).map_err(|error| match error {
            attach::AttachError::NotReady(_) => AttachError::NotReady(error.to_string(), NOT_READY),
            attach::AttachError::NotSupported(_) => AttachError::Unsupported(error.to_string()),
        })?;
        Ok(Attached {
            instance: attached.instance().to_vec(),
            // Reserved at the start, so that code which is made later is in them, too.
            pieces: attached.heaps.0.iter().map(|heap| (heap.low, heap.high)).collect(),
            opaque: attached.bytes(),
            grows: false,
            about: format!("HotSpot {}", attached.layout.version),
        })
    }
}

fn name(names: &mut Names<'_>, frame: &RuntimeFrame) -> Named {
    let frame = Frame { object: frame.object.0, position: frame.position, cookie: frame.cookie };
    let Some((code, functions)) = names.name(frame) else { return Err(Arc::from(frame.gone())) };
    let tier = match code {
        Code::Interpreted => Some(Tier::Interpreted),
        Code::C1 => Some(Tier::C1),
        Code::C2 => Some(Tier::C2),
        Code::Native | Code::Stub => None,
    };
    let named = functions.into_iter().take(MAX_NAMES).map(|function| FrameName {
        function: function.name.into(),
        file: function.file.into(),
        line: function.line,
        start_line: 0,
        tier,
    });
    Ok(named.collect())
}
