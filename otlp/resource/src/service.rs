//! Names for services that give themselves none.

use uuid::Uuid;

use profiler_environ::file_name;

/// The name space that the semantic conventions give for `service.instance.id` made from something that is unique already.
const INSTANCES: Uuid = Uuid::from_u128(0x4d63_009a_8d0f_11ee_aad7_4c79_6ed8_e320);

/// The name of the service that a unit of systemd is: its own without `.service`. Scopes are a login or one start of a desktop's
/// program, `user@1000.service` is a whole login: they name nothing.
pub(super) fn of_unit(unit: &str) -> Option<String> {
    let name = unit.strip_suffix(".service").filter(|name| !name.is_empty() && !name.starts_with("user@"))?;
    Some(unescaped(name))
}

/// `\xNN` in a unit's name stands for a byte (systemd.unit(5)).
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The name of the service that a program is: its file's, else what the kernel calls it.
pub(super) fn of_program(exe: &[u8], comm: &str) -> String {
    match file_name(exe) {
        b"" => comm.to_owned(),
        name => String::from_utf8_lossy(name).into_owned(),
    }
}

/// An id for a process that has none, the same whoever asks and whenever: a UUID, version 5, of machine, boot, pid and start.
pub(super) fn instance_id((machine, boot): (&str, &str), pid: u32, start_ticks: u64) -> String {
    let unique = format!("{machine}/{boot}/{pid}/{start_ticks}");
    Uuid::new_v5(&INSTANCES, unique.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (unit, name) in [
            ("ssh.service", Some("ssh")),
            ("postgresql@15-main.service", Some("postgresql@15-main")),
            ("my\\x2dapp.service", Some("my-app")),
            ("a\\xzz\\x.service", Some("a\\xzz\\x")),
            ("user@1000.service", None),
            ("session-3.scope", None),
            (".service", None),
            ("", None),
        ] {
            assert_eq!(of_unit(unit).as_deref(), name, "{unit}");
        }
    }

    #[test]
    fn programs() {
        assert_eq!(of_program(b"/usr/bin/python3.11", "worker"), "python3.11");
        assert_eq!(of_program(b"", "kworker/0:1"), "kworker/0:1");
    }

    #[test]
    fn instances_differ_by_process_and_stay() {
        let host = ("3d1219c7c4c5404aaa1f6d2a48adfda4", "b");
        let id = instance_id(host, 7, 100);
        // python3 -c 'import uuid; print(uuid.uuid5(uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320"), "3d1219c7c4c5404aaa1f6d2a48adfda4/b/7/100"))'
        assert_eq!(id, "90794ff5-8162-5572-812b-17ed44e98164");
        assert_ne!(id, instance_id(host, 8, 100));
        assert_ne!(id, instance_id(host, 7, 101));
    }
}
