//! How the process resolves host names.

/// Makes a static binary resolve host names by `/etc/hosts` and DNS alone. glibc would otherwise load what `/etc/nsswitch.conf` names from
/// the host's own libraries, which are of another glibc than the one in the binary. To be called before threads start.
pub fn resolve_by_files_and_dns() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    {
        unsafe extern "C" {
            /// `nss.h` of glibc; keeps no pointer.
            fn __nss_configure_lookup(database: *const libc::c_char, line: *const libc::c_char) -> libc::c_int;
        }
        // SAFETY: both are strings that end in NUL; both services are in the static library. On failure all is as before.
        unsafe {
            __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
        }
    }
}
