//! What is the same for all processes of a machine.

use opentelemetry_semantic_conventions::attribute::{
    HOST_ARCH, HOST_ID, HOST_NAME, K8S_NODE_NAME, OS_BUILD_ID, OS_DESCRIPTION, OS_NAME, OS_TYPE, OS_VERSION,
};

use profiler_environ::read_bounded;

use super::{Attributes, ResourceOptions};

/// What was found out about the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// `host.id`, "" if unknown.
    pub id: String,
    /// Of this boot of the machine.
    pub boot_id: String,
    name: String,
    arch: &'static str,
    kernel_release: String,
    os: OsRelease,
}

/// Lines of os-release(5) that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OsRelease {
    name: String,
    version: String,
    description: String,
}

impl Host {
    /// Asks the machine. In a container that sees the host's processes the files are those of the host.
    pub(super) fn detect() -> Self {
        let read = |path: &str| {
            let bytes = read_bounded(&format!("/proc/1/root{path}"), 64 << 10);
            let bytes = bytes.or_else(|_| read_bounded(path, 64 << 10)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).trim().to_owned()
        };
        let ids = ["/etc/machine-id", "/var/lib/dbus/machine-id"].map(read);
        let releases = ["/etc/os-release", "/usr/lib/os-release"].map(read);
        let uname = rustix::system::uname();
        let arch = match uname.machine().to_bytes() {
            b"x86_64" => "amd64",
            b"aarch64" => "arm64",
            b"ppc64le" | b"ppc64" => "ppc64",
            b"s390x" => "s390x",
            b"riscv64" => "riscv64",
            _ => "",
        };
        Self {
            id: ids.into_iter().find(|id| is_machine_id(id)).unwrap_or_default(),
            boot_id: String::from_utf8_lossy(&read_bounded("/proc/sys/kernel/random/boot_id", 64).unwrap_or_default())
                .trim()
                .to_owned(),
            name: uname.nodename().to_string_lossy().into_owned(),
            arch,
            kernel_release: uname.release().to_string_lossy().into_owned(),
            os: releases.iter().map(|text| os_release(text)).find(|os| !os.name.is_empty()).unwrap_or_default(),
        }
    }

    /// The attributes of every resource; see docs/resources.md for who wins.
    pub(super) fn attributes(&self, options: &ResourceOptions, node: Option<&str>) -> Attributes {
        let mut shared = Attributes::default();
        for (key, value) in options.labels.iter().chain(&options.attributes) {
            shared.put(key.clone(), value.as_str());
        }
        if let Some(node) = node {
            shared.put(K8S_NODE_NAME, node);
        }
        // A container has a host name of its own; its node has the machine's.
        shared.put(HOST_NAME, node.unwrap_or(&self.name));
        shared.put(HOST_ID, self.id.as_str());
        shared.put(HOST_ARCH, self.arch);
        shared.put(OS_TYPE, "linux");
        shared.put(OS_NAME, self.os.name.as_str());
        shared.put(OS_VERSION, self.os.version.as_str());
        shared.put(OS_DESCRIPTION, self.os.description.as_str());
        shared.put(OS_BUILD_ID, self.kernel_release.as_str());
        shared
    }
}

/// machine-id(5): 32 hexadecimal digits, not all 0; "uninitialized" while the machine is installed.
fn is_machine_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && id.bytes().any(|byte| byte != b'0')
}

fn os_release(text: &str) -> OsRelease {
    let mut os = OsRelease::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        let quoted = ['"', '\''].iter().find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote));
        // Within quotes a backslash stands before what the shell would understand.
        let value = quoted.unwrap_or(value).replace('\\', "");
        match key.trim() {
            "NAME" => os.name = value,
            "VERSION_ID" => os.version = value,
            "PRETTY_NAME" => os.description = value,
            _ => {}
        }
    }
    os
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_files() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME='Debian'\nVERSION_ID=12\n# x\nJUNK\nID=\"\n";
        let os = os_release(text);
        assert_eq!((os.name.as_str(), os.version.as_str()), ("Debian", "12"));
        assert_eq!(os.description, "Debian GNU/Linux 12 (bookworm)");
    }

    #[test]
    fn ids_of_machines() {
        assert!(is_machine_id("3d1219c7c4c5404aaa1f6d2a48adfda4"));
        for bad in ["", "uninitialized", "00000000000000000000000000000000", "3d1219c7c4c5404aaa1f6d2a48adfda4x"] {
            assert!(!is_machine_id(bad), "{bad}");
        }
    }

    #[test]
    fn who_wins() {
        let mut options = ResourceOptions::default();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        options.labels = [pair("team", "label"), pair("host.id", "i-0123")].into();
        options.attributes = [pair("team", "attribute"), pair("cloud.region", "eu")].into();
        let host = Host { id: "3d1219c7c4c5404aaa1f6d2a48adfda4".into(), name: "alder".into(), ..Host::default() };
        let shared = host.attributes(&options, Some("node-7"));
        let text = |key| shared.text(key);
        assert_eq!((text("team"), text("cloud.region")), (Some("label"), Some("eu")));
        assert_eq!((text("host.id"), text("host.name")), (Some("i-0123"), Some("node-7")));
        assert_eq!(text("k8s.node.name"), Some("node-7"));
    }
}
