//! Descriptor -> restore program -> template -> child.
//!
//! ```text
//!  Descriptor + Placement --compile--> Program --keeper forks, blob runs it--> Template (stopped)
//!                                                                                  | clone3 + tail
//!                                                                                  v
//!                                                                                child
//! ```

pub mod program;
