//! What the card has, and what a process asked of it.

use std::collections::HashMap;
use std::fmt;

/// What an H200 has, by the CUDA programming guide (compute capability 9.0) and its data sheet.
pub const NAME: &str = "NVIDIA H200 (stand-in)";
pub const N_MULTIPROCESSORS: i32 = 132;
pub const COMPUTE_CAPABILITY: (i32, i32) = (9, 0);
pub const MAX_UNITS: u32 = 1024;
/// Bytes of shared memory that a kernel can have without asking, and by asking.
pub const SHARED_BYTES: i32 = 48 << 10;
pub const MAX_SHARED_BYTES: i32 = 227 << 10;
/// Bytes of memory: 143,771 MiB.
pub const MEMORY_BYTES: u64 = 143_771 << 20;
/// Which addresses begin at a multiple of it.
const ALIGNMENT: u64 = 512;

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    OutOfMemory,
    InvalidValue,
    InvalidHandle,
}

/// One card, as one process uses it.
#[derive(Debug)]
pub struct Card {
    memory_bytes: u64,
    /// Of each allocation its bytes, by address.
    allocations: HashMap<u64, u64>,
    next_address: u64,
    allocated_bytes: u64,
    /// Shared memory that each kernel may have; a handle is a place in it, from 1 on.
    kernels: Vec<u32>,
    report: Report,
}

/// What a process asked for. It is shown as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The most bytes of memory that were held at a time.
    pub peak_bytes: u64,
    /// How often memory was asked for.
    pub n_allocations: u64,
    /// Requests that did not fit.
    pub n_refused: u64,
    pub n_launches: u64,
    pub n_graph_launches: u64,
    /// Modules that were loaded, each of a compiled kernel.
    pub n_modules: u64,
    /// Bytes that came from the host and went to it.
    pub read_bytes: u64,
    pub written_bytes: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            peak_bytes,
            n_allocations,
            n_refused,
            n_launches,
            n_graph_launches,
            n_modules,
            read_bytes,
            written_bytes,
        } = self;
        write!(
            f,
            "{{\"peak_bytes\": {peak_bytes}, \"n_allocations\": {n_allocations}, \"n_refused\": {n_refused}, \
             \"n_launches\": {n_launches}, \"n_graph_launches\": {n_graph_launches}, \"n_modules\": {n_modules}, \
             \"read_bytes\": {read_bytes}, \"written_bytes\": {written_bytes}}}"
        )
    }
}

impl Card {
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            allocations: HashMap::new(),
            next_address: 1 << 44,
            allocated_bytes: 0,
            kernels: Vec::new(),
            report: Report::default(),
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub fn free_bytes(&self) -> u64 {
        self.memory_bytes - self.allocated_bytes
    }

    pub fn report(&self) -> Report {
        self.report
    }

    /// The address of `n_bytes` of memory. Nothing is behind it.
    pub fn allocate(&mut self, n_bytes: u64) -> Result<u64, Refusal> {
        if n_bytes == 0 {
            return Err(Refusal::InvalidValue);
        }
        if n_bytes > self.free_bytes() {
            self.report.n_refused += 1;
            return Err(Refusal::OutOfMemory);
        }
        let address = self.next_address;
        self.next_address += n_bytes.next_multiple_of(ALIGNMENT);
        self.allocations.insert(address, n_bytes);
        self.allocated_bytes += n_bytes;
        self.report.n_allocations += 1;
        self.report.peak_bytes = self.report.peak_bytes.max(self.allocated_bytes);
        Ok(address)
    }

    /// Takes memory back, by the address that [`Card::allocate`] gave.
    pub fn free(&mut self, address: u64) -> Result<(), Refusal> {
        let n_bytes = self.allocations.remove(&address).ok_or(Refusal::InvalidValue)?;
        self.allocated_bytes -= n_bytes;
        Ok(())
    }

    pub fn copied_in(&mut self, n_bytes: u64) {
        self.report.read_bytes += n_bytes;
    }

    pub fn copied_out(&mut self, n_bytes: u64) {
        self.report.written_bytes += n_bytes;
    }

    pub fn loaded(&mut self) -> u64 {
        self.report.n_modules += 1;
        self.report.n_modules
    }

    /// The handle of a new kernel.
    pub fn kernel(&mut self) -> usize {
        self.kernels.push(SHARED_BYTES as u32);
        self.kernels.len()
    }

    /// Lets launches of a kernel have more shared memory than they can have without asking.
    pub fn allow_shared(&mut self, handle: usize, n_bytes: i32) -> Result<(), Refusal> {
        let shared = handle.checked_sub(1).and_then(|at| self.kernels.get_mut(at)).ok_or(Refusal::InvalidHandle)?;
        if !(0..=MAX_SHARED_BYTES).contains(&n_bytes) {
            return Err(Refusal::InvalidValue);
        }
        *shared = (n_bytes as u32).max(SHARED_BYTES as u32);
        Ok(())
    }

    /// Counts a launch of `blocks` of `units` each, which a card would take.
    pub fn launch(
        &mut self,
        handle: usize,
        blocks: [u32; 3],
        units: [u32; 3],
        shared_bytes: u32,
    ) -> Result<(), Refusal> {
        let shared = *handle.checked_sub(1).and_then(|at| self.kernels.get(at)).ok_or(Refusal::InvalidHandle)?;
        let n_units: u64 = units.iter().map(|n| u64::from(*n)).product();
        let grid_fits = (1..=i32::MAX as u32).contains(&blocks[0])
            && blocks[1..].iter().all(|n| (1..=u32::from(u16::MAX)).contains(n));
        if !grid_fits || !(1..=u64::from(MAX_UNITS)).contains(&n_units) || shared_bytes > shared {
            return Err(Refusal::InvalidValue);
        }
        self.report.n_launches += 1;
        Ok(())
    }

    pub fn graph_launched(&mut self) {
        self.report.n_graph_launches += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_ends_and_the_peak_stays() {
        let mut card = Card::new(1000);
        let first = card.allocate(600).expect("it fits");
        assert_eq!(card.allocate(500), Err(Refusal::OutOfMemory));
        card.free(first).expect("it was given");
        assert_eq!(card.free(first), Err(Refusal::InvalidValue));
        let second = card.allocate(500).expect("it fits now");
        assert_ne!(first, second);
        assert_eq!((card.report().peak_bytes, card.free_bytes(), card.report().n_refused), (600, 500, 1));
    }

    #[test]
    fn a_launch_that_a_card_would_refuse_is_refused() {
        let mut card = Card::new(1000);
        let kernel = card.kernel();
        assert_eq!(card.launch(kernel, [7, 1, 1], [32, 4, 1], 48 << 10), Ok(()));
        assert_eq!(card.launch(kernel, [7, 1, 1], [32, 4, 1], 64 << 10), Err(Refusal::InvalidValue));
        card.allow_shared(kernel, 64 << 10).expect("a card has more");
        assert_eq!(card.launch(kernel, [7, 1, 1], [32, 4, 1], 64 << 10), Ok(()));
        assert_eq!(card.allow_shared(kernel, 228 << 10), Err(Refusal::InvalidValue));
        assert_eq!(card.launch(kernel, [7, 1, 1], [1024, 2, 1], 0), Err(Refusal::InvalidValue));
        assert_eq!(card.launch(kernel, [1, 65_536, 1], [32, 1, 1], 0), Err(Refusal::InvalidValue));
        assert_eq!(card.launch(9, [1, 1, 1], [32, 1, 1], 0), Err(Refusal::InvalidHandle));
        assert_eq!(card.report().n_launches, 2);
    }
}
