//! Where accepted events wait for their delivery.

pub mod disk;
