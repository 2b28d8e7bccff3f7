//! The sources of the configuration.
//!
//! A [`Source`] delivers everything, then every change. [`FixedSource`] is a constant, and [`LiveSource`] one that the
//! program changes with a [`LiveHandle`]. The feature `file` adds `FileSource`, and `etcd` adds `EtcdSource`.
//!
//! [`guide::extending`](crate::guide::extending) shows how to add a source.

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "file")]
mod file;
mod fixed;
#[cfg(any(feature = "etcd", feature = "file"))]
mod ignored;

#[cfg(fuzzing)]
pub(crate) use self::etcd::fuzz;
#[cfg(feature = "etcd")]
pub use self::etcd::{BadTlsFile, EtcdOptions, EtcdSource, EtcdTls, InvalidOptions, TlsFile};
#[cfg(feature = "file")]
pub use self::file::FileSource;
pub use self::fixed::{ChangeError, FixedSource, LiveHandle, LiveSource};
pub use crate::reflector::{Feed, Replacement, Source};
