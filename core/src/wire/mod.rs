//! Bytes between processes: framing, the local agent's socket, agent to agent, and READ streams.
//!
//! | module | between | carried by |
//! |---|---|---|
//! | `local` | libmitosis or the command line, and the agent of this host | unix stream socket, frames |
//! | `preload` | `mitosis prepare PID` and the preload library in that process | unix stream socket, frames |
//! | `control` | agent and agent | tcp, Noise (`NNpsk0`), frames |
//! | `read` | pager and page service | tcp, opened by a one-time token; plain, or in records of `seal` (`read_stream`) |

#[cfg(feature = "agent")]
pub mod control;
pub mod frame;
pub mod id_map;
pub mod listen;
pub mod local;
pub mod namespaces;
pub mod preload;
#[cfg(feature = "agent")]
pub mod read;
#[cfg(feature = "agent")]
pub mod read_stream;
#[cfg(feature = "agent")]
pub mod seal;
pub mod traced;

#[cfg(all(test, feature = "agent"))]
mod golden_tests;
#[cfg(all(test, feature = "agent"))]
mod hostile_tests;
