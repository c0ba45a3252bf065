//! Compiles the BPF programs into a skeleton, and the unwinder's core a second time for the host.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

const SOURCES: [&str; 15] = [
    "abi.h",
    "arch.h",
    "arch_arm64.h",
    "arch_x86.h",
    "feed.bpf.c",
    "hotspot.h",
    "maps.h",
    "profiler.bpf.c",
    "python.h",
    "ring.h",
    "runtimes.h",
    "sources.h",
    "unwind.h",
    "v8.h",
    "vmlinux_min.h",
];
/// v2 is what kernel 5.10 takes; newer clangs default to v3.
const FLAGS: [&str; 3] = ["-mcpu=v2", "-Wall", "-Werror"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let sources = Path::new("src/bpf");
    for file in SOURCES {
        println!("cargo::rerun-if-changed={}", sources.join(file).display());
    }
    println!("cargo::rerun-if-changed=src/native/unwind_native.c");
    println!("cargo::rerun-if-env-changed=CLANG");

    let clang = clang();
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    // asm/types.h lives in the multiarch folder, which clang does not search for the bpf target
    let includes = format!("/usr/include/{arch}-linux-gnu");
    // The lines in BTF are the same wherever the project lies.
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = format!("-ffile-prefix-map={here}=bpf");
    let builder = |source: &str, flags: &[&str]| {
        let mut builder = SkeletonBuilder::new();
        builder.source(sources.join(source)).clang(&clang);
        builder.clang_args(FLAGS.iter().chain(&["-I", &includes, &folder]).chain(flags));
        builder
    };
    let mut built = builder("profiler.bpf.c", &[]).build_and_generate(out.join("profiler.skel.rs"));
    if env::var_os("CARGO_FEATURE_FEED").is_some() {
        built = built.and_then(|()| builder("feed.bpf.c", &[]).build_and_generate(out.join("feed.skel.rs")));
    }
    if env::var_os("CARGO_FEATURE_ARM64_OBJECT").is_some() {
        let arm64 = || builder("profiler.bpf.c", &["-D__TARGET_ARCH_arm64"]).obj(out.join("profiler_arm64.o")).build();
        built = built.and_then(|()| arm64());
    }
    if let Err(error) = built {
        eprintln!("cannot compile the BPF programs with {clang}: {error:?}");
        eprintln!("needed: clang 14 or newer, libelf-dev, zlib1g-dev, linux-libc-dev; `scripts/setup` installs them");
        std::process::exit(1);
    }

    cc::Build::new()
        .file("src/native/unwind_native.c")
        .include(sources)
        .flag_if_supported("-std=gnu11")
        .warnings(true)
        .opt_level(2)
        .compile("profiler_unwind");
}

/// The clang to use: `$CLANG`, or the newest that is on the PATH (Debian names it by version).
fn clang() -> String {
    if let Ok(clang) = env::var("CLANG") {
        return clang;
    }
    let mut names = vec!["clang".to_owned()];
    names.extend((14..=25).rev().map(|version| format!("clang-{version}")));
    names
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
        .unwrap_or_else(|| "clang".to_owned())
}
