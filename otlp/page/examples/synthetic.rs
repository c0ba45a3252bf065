//! Writes the viewer's page for a made-up host, the same for the same arguments, to try the viewer with.
//!
//! `cargo run --release --example synthetic -- --stacks 100000 --samples 1000000 -o big.html`
//!
//! Six programs (C, C++, Rust, Go, a JIT and the kernel's own threads) each have a call graph with names as such programs
//! have them; a stack is a random walk through one, and samples fall on stacks as a power law, as they do in life.
//! `--heap` gives a file with four sample types and no threads; `--hostile` names meant to break out of a page; `--empty`
//! no samples at all.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use profiler_model::builder::ProfileBuilder;
use profiler_model::{
    FrameKind, Function, Line, Location, LocationId, Loss, Mapping, Origin, Process, Profiles, Sample, Thread,
    ThreadId, ValueType, Values,
};

/// xorshift64*: good enough to be unlike a pattern, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n.max(1)
    }
    /// Small numbers far more often than great ones.
    fn skewed(&mut self, n: usize) -> usize {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((unit * unit * unit * n as f64) as usize).min(n.saturating_sub(1))
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A program to make up.
struct Program {
    comm: &'static str,
    executable: &'static str,
    processes: usize,
    threads: &'static [&'static str],
    language: Language,
    share: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Language {
    C,
    Cpp,
    Rust,
    Go,
    Jit,
    Kernel,
}

const PROGRAMS: &[Program] = &[
    Program {
        comm: "envoy",
        executable: "/usr/local/bin/envoy",
        processes: 2,
        threads: &["envoy", "wrk:worker_0", "wrk:worker_1", "GrpcGoogClient"],
        language: Language::Cpp,
        share: 34,
    },
    Program {
        comm: "postgres",
        executable: "/usr/lib/postgresql/16/bin/postgres",
        processes: 12,
        threads: &["postgres"],
        language: Language::C,
        share: 24,
    },
    Program {
        comm: "ingest-server",
        executable: "/opt/ingest/bin/ingest-server",
        processes: 1,
        threads: &["ingest-server", "tokio-rt-worker", "rocksdb:low0"],
        language: Language::Rust,
        share: 20,
    },
    Program {
        comm: "kubelet",
        executable: "/usr/bin/kubelet",
        processes: 1,
        threads: &["kubelet"],
        language: Language::Go,
        share: 10,
    },
    Program {
        comm: "node",
        executable: "/usr/bin/node",
        processes: 3,
        threads: &["node", "V8Worker"],
        language: Language::Jit,
        share: 9,
    },
    Program {
        comm: "kworker/1:2",
        executable: "",
        processes: 4,
        threads: &["kworker/1:2"],
        language: Language::Kernel,
        share: 3,
    },
];

const SYSCALLS: &[&[&str]] = &[
    &[
        "entry_SYSCALL_64_after_hwframe",
        "do_syscall_64",
        "__x64_sys_sendto",
        "__sys_sendto",
        "sock_sendmsg",
        "tcp_sendmsg",
        "tcp_sendmsg_locked",
        "tcp_push",
        "__tcp_push_pending_frames",
        "tcp_write_xmit",
        "__tcp_transmit_skb",
        "__ip_queue_xmit",
        "ip_local_out",
        "ip_output",
        "ip_finish_output2",
        "__dev_queue_xmit",
        "__local_bh_enable_ip",
        "do_softirq",
        "__do_softirq",
        "net_rx_action",
        "process_backlog",
        "__netif_receive_skb_core",
        "ip_rcv",
        "tcp_v4_rcv",
        "tcp_rcv_established",
        "sock_def_readable",
        "__wake_up_common",
        "ep_poll_callback",
        "try_to_wake_up",
        "_raw_spin_unlock_irqrestore",
    ],
    &[
        "entry_SYSCALL_64_after_hwframe",
        "do_syscall_64",
        "__x64_sys_read",
        "ksys_read",
        "vfs_read",
        "ext4_file_read_iter",
        "generic_file_read_iter",
        "filemap_read",
        "copy_page_to_iter",
        "_copy_to_iter",
        "rep_movs_alternative",
    ],
    &[
        "entry_SYSCALL_64_after_hwframe",
        "do_syscall_64",
        "__x64_sys_futex",
        "do_futex",
        "futex_wait",
        "__futex_wait",
        "futex_wait_queue",
        "schedule",
        "__schedule",
        "finish_task_switch.isra.0",
    ],
    &[
        "asm_exc_page_fault",
        "exc_page_fault",
        "do_user_addr_fault",
        "handle_mm_fault",
        "__handle_mm_fault",
        "do_anonymous_page",
        "vma_alloc_folio",
        "__alloc_pages",
        "get_page_from_freelist",
        "clear_page_erms",
    ],
    &[
        "entry_SYSCALL_64_after_hwframe",
        "do_syscall_64",
        "__x64_sys_epoll_wait",
        "do_epoll_wait",
        "ep_poll",
        "schedule_hrtimeout_range_clock",
        "schedule",
        "__schedule",
        "psi_group_change",
    ],
];

const NOUNS: &[&str] = &[
    "Buffer", "Header", "Stream", "Route", "Cluster", "Index", "Page", "Tuple", "Plan", "Segment", "Block", "Column",
    "Batch", "Frame", "Token", "Lease", "Shard", "Cursor", "Codec", "Filter", "Watch", "Cache",
];
const VERBS: &[&str] = &[
    "decode", "encode", "match", "insert", "lookup", "flush", "advance", "merge", "parse", "commit", "scan",
    "dispatch", "resolve", "compare", "hash", "copy", "split", "poll", "append", "evict",
];
const SPACES: &[&str] = &["Http", "Network", "Router", "Upstream", "Event", "Stats", "Grpc", "Tracing"];

/// The `nth` name of a language.
fn name(language: Language, nth: usize) -> (String, String) {
    let (noun, verb, space) = (NOUNS[nth % 22], VERBS[nth / 3 % 20], SPACES[nth / 7 % 8]);
    let (n, v, s) = (noun.to_lowercase(), verb, space.to_lowercase());
    match language {
        Language::C => {
            (format!("{n}_{v}{}", ["", "_internal", "_slow", "_tree"][nth % 4]), format!("src/backend/{s}/{n}.c"))
        }
        Language::Cpp if nth.is_multiple_of(5) => (
            format!(
                "std::_Function_handler<void (Envoy::{space}::{noun}&&), Envoy::{space}::{noun}Impl::{v}{noun}(std::shared_ptr<Envoy::{space}::{noun}> const&, std::unordered_map<std::string, Envoy::{space}::{noun}*, std::hash<std::string> >&)::{{lambda()#{}}}>::_M_invoke(std::_Any_data const&, Envoy::{space}::{noun}&&)",
                nth % 9
            ),
            "/usr/include/c++/12/bits/std_function.h".to_owned(),
        ),
        Language::Cpp => (
            format!(
                "Envoy::{space}::{noun}Impl::{v}{}(Envoy::{space}::{noun}&, bool)",
                ["Data", "Headers", "", "Once"][nth % 4]
            ),
            format!("source/common/{s}/{n}_impl.cc"),
        ),
        Language::Rust => (
            match nth % 3 {
                0 => format!("ingest::{s}::{n}::{noun}Writer<W>::{v}"),
                1 => format!("<ingest::{s}::{noun} as core::future::future::Future>::{v}::{{{{closure}}}}"),
                _ => format!("core::ptr::drop_in_place<alloc::vec::Vec<ingest::{s}::{noun}{verb}>>"),
            },
            format!("crates/{s}/src/{n}.rs"),
        ),
        Language::Go => {
            (format!("k8s.io/kubernetes/pkg/kubelet/{s}.(*{n}Manager).{verb}{noun}"), format!("pkg/kubelet/{s}/{n}.go"))
        }
        Language::Jit => (format!("LazyCompile:*{v}{noun} /srv/app/{s}/{n}.js:{}", nth * 7 % 400), String::new()),
        Language::Kernel => (format!("{n}_{v}_work"), String::new()),
    }
}

/// A program's call graph as locations: `[layer][position]`.
struct Graph {
    roots: Vec<LocationId>,
    layers: Vec<Vec<LocationId>>,
    leaves: Vec<LocationId>,
}

struct Maker {
    builder: ProfileBuilder,
    random: Random,
    hostile: bool,
}

impl Maker {
    fn location(&mut self, kind: FrameKind, file: &str, names: &[(&str, &str)], guessed: bool) -> LocationId {
        let file = self.builder.string(file);
        let build_id_gnu = self.builder.string("5bf0d3c5b16c3f2e9a3d7e8f1a2b3c4d5e6f7081");
        let mapping = (file != 0).then(|| {
            self.builder.mapping(Mapping { start: 0x1000, end: 0x4000_0000, file, build_id_gnu, ..Mapping::default() })
        });
        let high = if kind == FrameKind::Kernel { 0xffff_ffff_8100_0000 } else { 0x40_0000 };
        let address = high + self.random.next() % 0x80_0000;
        let mut lines = Vec::new();
        for (name, source) in names {
            let (name, file) = (self.builder.string(name), self.builder.string(source));
            let start_line = 10 + name % 900;
            let function = self.builder.function(Function { name, system_name: 0, file, start_line });
            let line = if file == 0 { 0 } else { start_line + self.random.below(30) as u32 };
            lines.push(Line { function, line, column: 0 });
        }
        self.builder.location(Location { kind, mapping, address, lines, guessed, ..Location::default() })
    }

    fn graph(&mut self, program: &Program) -> Graph {
        let kind = match program.language {
            Language::Kernel => FrameKind::Kernel,
            Language::Go => FrameKind::Go,
            _ => FrameKind::Native,
        };
        let libc = "/usr/lib/x86_64-linux-gnu/libc.so.6";
        let roots: Vec<(FrameKind, &str, &str)> = match program.language {
            Language::Kernel => vec![
                (kind, "[kernel.kallsyms]", "ret_from_fork_asm"),
                (kind, "[kernel.kallsyms]", "ret_from_fork"),
                (kind, "[kernel.kallsyms]", "kthread"),
                (kind, "[kernel.kallsyms]", "worker_thread"),
                (kind, "[kernel.kallsyms]", "process_one_work"),
            ],
            Language::Go => vec![(kind, program.executable, "runtime.goexit"), (kind, program.executable, "main.main")],
            Language::Rust => vec![
                (kind, libc, "__clone3"),
                (kind, libc, "start_thread"),
                (kind, program.executable, "std::sys::thread::unix::Thread::new::thread_start"),
                (kind, program.executable, "<alloc::boxed::Box<F,A> as core::ops::function::FnOnce<Args>>::call_once"),
                (kind, program.executable, "tokio::runtime::scheduler::multi_thread::worker::Context::run"),
            ],
            _ => vec![
                (kind, program.executable, "_start"),
                (kind, libc, "__libc_start_main_impl"),
                (kind, libc, "__libc_start_call_main"),
                (kind, program.executable, "main"),
            ],
        };
        let roots =
            roots.into_iter().map(|(kind, file, name)| self.location(kind, file, &[(name, "")], false)).collect();
        let mut layers = Vec::new();
        for layer in 0..48 {
            let mut row = Vec::new();
            for position in 0..14 {
                let nth = layer * 29 + position * 13;
                let (mut name_0, file_0) = name(program.language, nth);
                if self.hostile && position % 4 == 0 {
                    name_0 = hostile(nth);
                }
                let (name_1, file_1) = name(program.language, nth + 5);
                let jit = program.language == Language::Jit && layer > 6;
                let unnamed = !jit && position == 13 && program.language == Language::C;
                let kind = if jit { FrameKind::Jit } else { kind };
                let file = match program.language {
                    Language::Kernel => "[kernel.kallsyms]",
                    _ if jit => "//anon",
                    _ => program.executable,
                };
                let inlined = !jit && kind == FrameKind::Native && position % 3 == 1;
                let names: &[(&str, &str)] = match (unnamed, inlined) {
                    (true, _) => &[],
                    (_, true) => &[(&name_0, &file_0), (&name_1, &file_1)],
                    _ => &[(&name_0, &file_0)],
                };
                let guessed = jit && position == 11;
                row.push(self.location(kind, file, names, guessed));
            }
            layers.push(row);
        }
        let mut leaves = Vec::new();
        if !matches!(program.language, Language::Kernel) {
            for leaf in
                ["__memmove_avx_unaligned_erms", "_int_malloc", "cfree@GLIBC_2.2.5", "__memset_avx2_unaligned_erms"]
            {
                leaves.push(self.location(kind, libc, &[(leaf, "")], false));
            }
        }
        Graph { roots, layers, leaves }
    }

    /// A stack, leaf first.
    fn stack(
        &mut self,
        program: &Program,
        graph: &Graph,
        kernel: &[Vec<LocationId>],
        marker: LocationId,
    ) -> Vec<LocationId> {
        let mut stack = Vec::new();
        if self.random.below(400) == 0 {
            stack.push(marker);
        } else {
            stack.extend(&graph.roots);
        }
        let depth =
            if program.language == Language::Kernel { 3 + self.random.below(9) } else { 8 + self.random.below(40) };
        let mut position = self.random.skewed(14);
        for layer in graph.layers.iter().take(depth) {
            // Mostly the same callee again: real programs have a few hot paths and many cold ones.
            if !self.random.chance(72) {
                position = (position + self.random.skewed(14)) % 14;
            }
            stack.push(layer[position]);
        }
        if program.language != Language::Kernel {
            match self.random.below(10) {
                0..3 => stack.extend(&kernel[self.random.skewed(kernel.len())]),
                3..6 => stack.push(graph.leaves[self.random.skewed(graph.leaves.len())]),
                _ => {}
            }
        }
        stack.reverse();
        stack
    }
}

fn hostile(nth: usize) -> String {
    match nth % 7 {
        0 => "</script><script>document.title='owned'</script>".into(),
        1 => "<img src=x onerror=\"document.title='owned'\">".into(),
        2 => "evil\u{202e}txt.exe\u{2066}".into(),
        3 => "a\u{0}b\u{1b}[31mc\r\n\u{85}\u{2028}d".into(),
        4 => "x".repeat(65_536),
        5 => "${document.title='owned'}`'\"&lt;&amp;<!--]]>".into(),
        _ => "__proto__".into(),
    }
}

fn profile(stacks: usize, samples: usize, heap: bool, is_hostile: bool) -> Profiles {
    let mut maker =
        Maker { builder: ProfileBuilder::new(), random: Random(0x9e37_79b9_7f4a_7c15), hostile: is_hostile };
    let kernel: Vec<Vec<LocationId>> = SYSCALLS
        .iter()
        .map(|path| {
            path.iter()
                .map(|name| maker.location(FrameKind::Kernel, "[kernel.kallsyms]", &[(name, "")], false))
                .collect()
        })
        .collect();
    let marker = maker.location(FrameKind::Marker, "", &[("unwind: no row for this address", "")], false);
    let graphs: Vec<Graph> = PROGRAMS.iter().map(|program| maker.graph(program)).collect();

    let mut threads: Vec<Vec<ThreadId>> = Vec::new();
    let mut pid = 611;
    for program in PROGRAMS {
        let mut own = Vec::new();
        for _ in 0..program.processes {
            pid += 37;
            let name = if is_hostile { hostile(pid as usize) } else { program.comm.to_owned() };
            let (name, executable) = (maker.builder.string(&name), maker.builder.string(program.executable));
            let process = maker.builder.process(Process { pid: Some(pid), name, executable, ..Process::default() });
            for (nth, thread) in program.threads.iter().enumerate() {
                let name = maker.builder.string(thread);
                own.push(maker.builder.thread(Thread { process, tid: pid + nth as u32, name }));
            }
        }
        threads.push(own);
    }

    let mut made: Vec<(u32, usize)> = Vec::new();
    let mut seen = HashSet::new();
    while made.len() < stacks {
        let mut pick = maker.random.below(100);
        let which = PROGRAMS.iter().position(|program| {
            let hit = pick < program.share;
            pick = pick.saturating_sub(program.share);
            hit
        });
        let which = which.unwrap_or(0);
        let stack = maker.stack(&PROGRAMS[which], &graphs[which], &kernel, marker);
        let id = maker.builder.stack(&stack);
        if seen.insert(id) {
            made.push((id, which));
        }
    }

    let start = 1_767_225_600_000_000_000;
    let duration = 10_000_000_000;
    let mut list = Vec::with_capacity(samples);
    for nth in 0..samples {
        // Each stack once, then the hot ones.
        let (stack, which) = made[if nth < made.len() { nth } else { maker.random.skewed(made.len()) }];
        let own = &threads[which];
        let thread = (!heap).then(|| own[maker.random.skewed(own.len())]);
        let time = start + duration * nth as u64 / samples as u64;
        let bytes = 1_i64 << (4 + maker.random.skewed(16));
        let live = if maker.random.chance(20) { 1 } else { 0 };
        let values = if heap { Values::Many([4, 4 * bytes, live, live * bytes].into()) } else { Values::One(1) };
        list.push(Sample { stack, thread, cpu: Some(0), time_unix_nanos: Some(time), values, ..Sample::default() });
    }

    let profile = maker.builder.profile_mut();
    profile.samples = list;
    let kinds: &[(&str, &str)] = match heap {
        true => &[
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ],
        false => &[("samples", "count")],
    };
    profile.sample_types =
        kinds.iter().map(|&(kind, unit)| ValueType { kind: kind.into(), unit: unit.into() }).collect();
    if heap {
        profile.period_type = ValueType { kind: "space".into(), unit: "bytes".into() };
        profile.period = 524_288;
        maker.builder.set_mut().comments = vec!["made up".into()];
    } else {
        profile.start_unix_nanos = start;
        profile.duration_nanos = duration;
        profile.period_type = ValueType { kind: "cpu".into(), unit: "nanoseconds".into() };
        profile.period = 10_101_010;
        let profile = maker.builder.set_mut();
        profile.origin = Origin {
            host_name: if is_hostile { hostile(0) } else { "web-7.fra.example.net".into() },
            kernel_release: "6.18.2-cloud-amd64".into(),
            arch: "amd64".into(),
            cpus: 64,
            frequency: 99,
            target: "all processes".into(),
            producer: "profiler 0.1.0".into(),
        };
        profile.losses = vec![
            Loss { reason: "lost: ring full".into(), count: (samples / 9_000) as u64 },
            Loss { reason: "unwind: no row for this address".into(), count: (samples / 400) as u64 },
            Loss { reason: "unwind: process ended before its stack was read".into(), count: 3 },
        ];
    }
    maker.builder.finish()
}

fn main() -> std::io::Result<()> {
    let (mut stacks, mut samples, mut output) = (2_000, 20_000, None);
    let (mut heap, mut is_hostile, mut empty) = (false, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok());
        match argument.as_str() {
            "--stacks" => stacks = number().unwrap_or(stacks),
            "--samples" => samples = number().unwrap_or(samples),
            "--heap" => heap = true,
            "--hostile" => is_hostile = true,
            "--empty" => empty = true,
            "-o" => output = arguments.next(),
            other => {
                eprintln!("unknown argument {other}; see the head of otlp/examples/synthetic.rs");
                std::process::exit(2);
            }
        }
    }
    if empty {
        (stacks, samples) = (0, 0);
    }
    let path = output.unwrap_or_else(|| "profile.html".to_owned());
    let profile = profile(stacks, samples.max(stacks), heap, is_hostile);
    let started = Instant::now();
    let mut file = BufWriter::new(File::create(&path)?);
    profiler_page::encode(&profile, &mut file)?;
    file.flush()?;
    let bytes = std::fs::metadata(&path)?.len();
    let frames: usize = profile.stacks.iter().map(Vec::len).sum();
    println!(
        "{path}: {bytes} bytes, {} stacks of {:.1} frames, {} samples, encoded in {:?}",
        profile.stacks.len(),
        frames as f64 / profile.stacks.len().max(1) as f64,
        profile.sample_entries(),
        started.elapsed()
    );
    Ok(())
}
