//! The schemes that this crate brings, one file each.

mod authorization;
mod bearer;

pub use self::authorization::Authorization;
pub use self::bearer::Bearer;
#[cfg(fuzzing)]
pub(crate) use self::bearer::fuzz;
