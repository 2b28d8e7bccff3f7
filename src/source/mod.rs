//! Where the configuration comes from.
//!
//! A [`Source`] brings everything there is, and then every change. [`FixedSource`] is a constant, and
//! [`LiveSource`] one that the program changes with a [`LiveHandle`]; with the feature `file` there is [`FileSource`], with
//! `etcd` [`EtcdSource`].
//!
//! # Adding a source
//!
//! One file with a type that implements [`Source`]; it is passed to [`reflect`](crate::reflector::reflect), so there is nothing to
//! register.

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
