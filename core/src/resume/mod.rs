//! Descriptor -> restore program -> template -> child.
//!
//! ```text
//!  Descriptor + Placement --compile--> Program --keeper forks, blob runs it--> Template (stopped)
//!                                                                                  | clone3 + tail
//!                                                                                  v
//!                                                                                child
//! ```

#[path = "../../restorer/abi.rs"]
pub mod abi;
pub mod blob;
pub mod child;
pub mod compile;
pub mod placement;
pub mod program;
pub mod template;
