//! Names of the kernel's errors.

use core::fmt;

use rustix::io::Errno;

/// An errno that is displayed by its name.
pub struct Named(pub Errno);

impl fmt::Display for Named {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            Errno::ACCESS => "EACCES",
            Errno::ADDRNOTAVAIL => "EADDRNOTAVAIL",
            Errno::AGAIN => "EAGAIN",
            Errno::BUSY => "EBUSY",
            Errno::FBIG => "EFBIG",
            Errno::INVAL => "EINVAL",
            Errno::IO => "EIO",
            Errno::ISDIR => "EISDIR",
            Errno::KEYREJECTED => "EKEYREJECTED",
            Errno::LIBBAD => "ELIBBAD",
            Errno::LOOP => "ELOOP",
            Errno::MFILE => "EMFILE",
            Errno::MSGSIZE => "EMSGSIZE",
            Errno::NAMETOOLONG => "ENAMETOOLONG",
            Errno::NODATA => "ENODATA",
            Errno::NODEV => "ENODEV",
            Errno::NOENT => "ENOENT",
            Errno::NOEXEC => "ENOEXEC",
            Errno::NOKEY => "ENOKEY",
            Errno::NOMEM => "ENOMEM",
            Errno::NOPKG => "ENOPKG",
            Errno::NOSYS => "ENOSYS",
            Errno::NOTDIR => "ENOTDIR",
            Errno::PERM => "EPERM",
            Errno::ROFS => "EROFS",
            Errno::TXTBSY => "ETXTBSY",
            errno => return write!(out, "errno {}", errno.raw_os_error()),
        };
        out.write_str(name)
    }
}
