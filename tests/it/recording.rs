//! Reports to a history: of each request, and of each attempt. The history here is in memory.

mod answers;
mod attempts;
mod layer;
mod received;
mod senders_gone;
