//! The driver's interface, by the names and the meaning of NVIDIA's CUDA Driver API reference.
//!
//! Owns what is true of every call: handles are numbers, work is done at once, an unknown wish is refused and never guessed.
#![allow(non_snake_case, reason = "the names are the driver's")]
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments, reason = "as the driver's reference has them")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::{LazyLock, Mutex, MutexGuard};

use crate::card::{self, Card, Refusal};
use crate::{KERNELS, MEMORY, REPORT};

/// What a call answers, by `CUresult`.
type Status = c_int;

const SUCCESS: Status = 0;
const INVALID_VALUE: Status = 1;
const OUT_OF_MEMORY: Status = 2;
const INVALID_HANDLE: Status = 400;

/// The version of the interface, as the driver spells it: 12.9.
const VERSION: c_int = 12_090;

/// What every handle is that stands for nothing in particular.
const HANDLE: usize = 1;

static CARD: LazyLock<Mutex<Card>> = LazyLock::new(|| {
    let wished = std::env::var(MEMORY).ok().and_then(|text| text.parse().ok());
    Mutex::new(Card::new(wished.unwrap_or(card::MEMORY_BYTES)))
});

/// Code of the modules that have been loaded, by handle, where it is wanted.
static CODE: LazyLock<Mutex<HashMap<usize, Vec<u8>>>> = LazyLock::new(Mutex::default);

/// Pages of the host, by address.
static PAGES: LazyLock<Mutex<HashMap<usize, Layout>>> = LazyLock::new(Mutex::default);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn card() -> MutexGuard<'static, Card> {
    locked(&CARD)
}

fn status<T>(result: Result<T, Refusal>) -> Status {
    match result {
        Ok(_) => SUCCESS,
        Err(Refusal::OutOfMemory) => OUT_OF_MEMORY,
        Err(Refusal::InvalidValue) => INVALID_VALUE,
        Err(Refusal::InvalidHandle) => INVALID_HANDLE,
    }
}

/// Puts an answer where the caller wants it.
unsafe fn answer<T>(place: *mut T, value: T) -> Status {
    if place.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller owns what it points at, which the driver's interface asks of it.
    unsafe { place.write(value) };
    SUCCESS
}

unsafe fn answer_text(place: *mut c_char, n_bytes: c_int, text: &str) -> Status {
    let n = text.len().min((n_bytes.max(1) - 1) as usize);
    // SAFETY: the caller has room for `n_bytes`, of which the text and its end take no more.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), place, n);
        place.add(n).write(0);
    }
    SUCCESS
}

extern "C" fn write_report() {
    let Some(path) = std::env::var_os(REPORT).map(PathBuf::from) else { return };
    if let Err(error) = std::fs::write(&path, format!("{}\n", card().report())) {
        eprintln!("{}: {error}", path.display());
    }
}

unsafe extern "C" {
    fn atexit(call: extern "C" fn()) -> c_int;
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> Status {
    static REGISTERED: LazyLock<()> = LazyLock::new(|| {
        // SAFETY: the function lives as long as the process, which never unloads its driver.
        unsafe { atexit(write_report) };
    });
    LazyLock::force(&REGISTERED);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Status {
    unsafe { answer(version, VERSION) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: Status, text: *mut *const c_char) -> Status {
    let name = match code {
        SUCCESS => c"CUDA_SUCCESS",
        OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        INVALID_HANDLE => c"CUDA_ERROR_INVALID_HANDLE",
        _ => c"CUDA_ERROR_INVALID_VALUE",
    };
    unsafe { answer(text, name.as_ptr()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: Status, text: *mut *const c_char) -> Status {
    unsafe { cuGetErrorName(code, text) }
}

// Devices and contexts: there is one of each.

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(n: *mut c_int) -> Status {
    unsafe { answer(n, 1) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, index: c_int) -> Status {
    if index == 0 { unsafe { answer(device, 0) } } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(text: *mut c_char, n_bytes: c_int, _device: c_int) -> Status {
    unsafe { answer_text(text, n_bytes, card::NAME) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(text: *mut c_char, n_bytes: c_int, _device: c_int) -> Status {
    unsafe { answer_text(text, n_bytes, "0000:00:00.0") }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(n_bytes: *mut usize, _device: c_int) -> Status {
    unsafe { answer(n_bytes, card().memory_bytes() as usize) }
}

/// Attributes by their numbers in `CUdevice_attribute`; for one that is not here the call is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) -> Status {
    let found = match attribute {
        // Units of a block, in all and in x, y, z; blocks in x, y, z.
        1..=3 => card::MAX_UNITS as c_int,
        4 => 64,
        5 => c_int::MAX,
        6 | 7 => c_int::from(u16::MAX),
        8 => card::SHARED_BYTES,
        // Units that go together.
        10 => 32,
        // Registers of a block.
        12 => 65_536,
        16 => card::N_MULTIPROCESSORS,
        75 => card::COMPUTE_CAPABILITY.0,
        76 => card::COMPUTE_CAPABILITY.1,
        97 => card::MAX_SHARED_BYTES,
        // Memory that is asked for in the order of a stream.
        115 => 1,
        _ => return INVALID_VALUE,
    };
    unsafe { answer(value, found) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, _device: c_int) -> Status {
    unsafe { answer(context, HANDLE) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(_context: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> Status {
    unsafe { answer(context, HANDLE) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> Status {
    unsafe { answer(least, 0).max(answer(greatest, -5)) }
}

// Streams and events: everything is over as soon as it is asked for.

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, _flags: c_uint) -> Status {
    unsafe { answer(stream, HANDLE) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(stream: *mut usize, _flags: c_uint, _priority: c_int) -> Status {
    unsafe { answer(stream, HANDLE) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(_stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(_stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(_stream: usize, _event: usize, _flags: c_uint) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut usize, _flags: c_uint) -> Status {
    unsafe { answer(event, HANDLE) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(_event: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(_event: usize, _stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(_event: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(_event: usize) -> Status {
    SUCCESS
}

/// Ten milliseconds: all are equally fast, and slow enough that nobody measures twice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, _start: usize, _end: usize) -> Status {
    unsafe { answer(milliseconds, 10.0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: usize, end: usize) -> Status {
    unsafe { cuEventElapsedTime(milliseconds, start, end) }
}

// Memory.

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Status {
    let card = card();
    unsafe { answer(free, card.free_bytes() as usize).max(answer(total, card.memory_bytes() as usize)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, n_bytes: usize) -> Status {
    match card().allocate(n_bytes as u64) {
        Ok(allocated) => unsafe { answer(address, allocated) },
        refused => status(refused),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, n_bytes: usize, _stream: usize) -> Status {
    unsafe { cuMemAlloc_v2(address, n_bytes) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> Status {
    status(card().free(address))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(address: u64, _stream: usize) -> Status {
    cuMemFree_v2(address)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(page: *mut *mut c_void, n_bytes: usize) -> Status {
    let Ok(layout) = Layout::from_size_align(n_bytes.max(1), 4096) else { return INVALID_VALUE };
    // SAFETY: the layout has a size.
    let allocated = unsafe { alloc_zeroed(layout) };
    if allocated.is_null() {
        return OUT_OF_MEMORY;
    }
    locked(&PAGES).insert(allocated as usize, layout);
    unsafe { answer(page, allocated.cast()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(page: *mut c_void) -> Status {
    let Some(layout) = locked(&PAGES).remove(&(page as usize)) else { return INVALID_VALUE };
    // SAFETY: it was allocated with this layout, and nobody has given it back before.
    unsafe { dealloc(page.cast(), layout) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoDAsync_v2(_to: u64, _from: *const c_void, n_bytes: usize, _stream: usize) -> Status {
    card().copied_in(n_bytes as u64);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, _from: u64, n_bytes: usize, _stream: usize) -> Status {
    card().copied_out(n_bytes as u64);
    // SAFETY: the caller has room for `n_bytes`.
    unsafe { ptr::write_bytes(to.cast::<u8>(), 0, n_bytes) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(_to: u64, _from: u64, _n_bytes: usize, _stream: usize) -> Status {
    SUCCESS
}

/// A copy of rows with gaps between them, by the reference's `CUDA_MEMCPY2D`.
#[repr(C)]
pub struct RowCopy {
    from_column: usize,
    from_row: usize,
    from_kind: c_int,
    from_host: *const c_void,
    from_device: u64,
    from_array: usize,
    from_pitch: usize,
    to_column: usize,
    to_row: usize,
    to_kind: c_int,
    to_host: *mut c_void,
    to_device: u64,
    to_array: usize,
    to_pitch: usize,
    width: usize,
    n_rows: usize,
}

/// The kind of memory that is the host's.
const HOST: c_int = 1;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2DAsync_v2(copy: *const RowCopy, _stream: usize) -> Status {
    // SAFETY: the caller hands over a whole description.
    let Some(copy) = (unsafe { copy.as_ref() }) else { return INVALID_VALUE };
    let n_bytes = (copy.width * copy.n_rows) as u64;
    if copy.from_kind == HOST {
        card().copied_in(n_bytes);
    }
    if copy.to_kind == HOST {
        card().copied_out(n_bytes);
        for row in 0..copy.n_rows {
            let start = (copy.to_row + row) * copy.to_pitch + copy.to_column;
            // SAFETY: the caller has room for every row at its pitch.
            unsafe { ptr::write_bytes(copy.to_host.cast::<u8>().add(start), 0, copy.width) };
        }
    }
    SUCCESS
}

// Kernels.

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_void) -> Status {
    if image.is_null() {
        return INVALID_VALUE;
    }
    let handle = card().loaded() as usize;
    if std::env::var_os(KERNELS).is_some() {
        // SAFETY: what is compiled here is text, which ends with a 0.
        let code = unsafe { CStr::from_ptr(image.cast()) }.to_bytes().to_owned();
        locked(&CODE).insert(handle, code);
    }
    unsafe { answer(module, handle) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(_module: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) -> Status {
    if name.is_null() {
        return INVALID_VALUE;
    }
    if let (Some(folder), Some(code)) = (std::env::var_os(KERNELS).map(PathBuf::from), locked(&CODE).remove(&module)) {
        // SAFETY: a name ends with a 0, by the interface.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let file = folder.join(format!("{name}.ptx"));
        if let Err(error) = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, code)) {
            eprintln!("{}: {error}", file.display());
        }
    }
    unsafe { answer(function, card().kernel()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(function: usize, attribute: c_int, value: c_int) -> Status {
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
    const SHARED: c_int = 8;
    if attribute == SHARED { status(card().allow_shared(function, value)) } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuLaunchKernel(
    function: usize,
    blocks_x: c_uint,
    blocks_y: c_uint,
    blocks_z: c_uint,
    units_x: c_uint,
    units_y: c_uint,
    units_z: c_uint,
    shared_bytes: c_uint,
    _stream: usize,
    _parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> Status {
    let (blocks, units) = ([blocks_x, blocks_y, blocks_z], [units_x, units_y, units_z]);
    status(card().launch(function, blocks, units, shared_bytes))
}

// Graphs: what is recorded is launched once, where a card would note it down, and has no nodes.

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(_stream: usize, _mode: c_int) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(_stream: usize, graph: *mut usize) -> Status {
    unsafe { answer(graph, HANDLE) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphGetNodes(_graph: usize, _nodes: *mut usize, n: *mut usize) -> Status {
    unsafe { answer(n, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(exec: *mut usize, _graph: usize, _flags: u64) -> Status {
    unsafe { answer(exec, HANDLE) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(_graph: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(_exec: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphUpload(_exec: usize, _stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(_exec: usize, _stream: usize) -> Status {
    card().graph_launched();
    SUCCESS
}
