//! TEMP
#![allow(missing_docs)]
use super::Placement;
use crate::descriptor::*;
use crate::image::*;
#[derive(Debug)]
pub struct Stub {
    pub patches: Vec<Patch>,
    pub trampolines: Vec<(u64, Vec<u8>)>,
}
impl Stub {
    pub fn new(_d: &Descriptor, _p: &Placement) -> Stub {
        Stub { patches: vec![], trampolines: vec![] }
    }
}
pub fn table(_d: &Descriptor, _l: &ImageLayout, _d2: (u32, u32, u64)) -> Vec<u8> {
    vec![]
}
