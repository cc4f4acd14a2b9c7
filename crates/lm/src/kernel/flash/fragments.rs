//! Products of tiles, in the registers of a plane.
//!
//! Owns the one instruction that the kernels are made of: a plane multiplies blocks of 16 × 16 numbers on tensor cores
//! (`mma.sync.m16n8k16` and `ldmatrix`; PTX ISA 8.5, sections 9.7.14.5.8 and 9.7.14.5.15). Each of its 32 lanes holds two
//! neighbours of a row in a register, four registers of a block: those at row `lane / 4` (and 8 below) and column
//! `2 · (lane % 4)` (and 8 to the right). The registers of a product, rounded, are therefore those of the next product's left
//! side, and a row lies in the four lanes of a quad.
//!
//! Where there are neither tensor cores nor planes, a unit is a whole plane: it holds the registers of all 32 lanes and
//! multiplies them one by one. Everything but the three bodies of this file that ask for it is then the same program, which
//! is how the kernels are tested without a GPU. Knows nothing of attention.
//!
//! d head dim

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

/// Two neighbours of a row: a register of the instruction's operands.
pub type Pair<T> = Vector<T, Const<2>>;

/// What is moved at once between memories: 16 bytes in bf16.
pub type Line<T> = Vector<T, Const<8>>;

/// Rows and columns of a block.
pub const BLOCK: usize = 16;

/// Lanes of a plane.
pub const PLANE: usize = 32;

/// How a kernel is cut, known when it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// Head dim, a multiple of [`BLOCK`].
    pub d: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// Planes of a cube; each owns a block's rows of the tile that the cube owns.
    pub n_planes: usize,
    /// Rows of the tiles that the cube's tile meets one after the other, a multiple of [`BLOCK`].
    pub n_met: usize,
    /// Lanes that a unit is: 1 on tensor cores, [`PLANE`] where they are imitated.
    pub n_lanes: usize,
    /// Whether scores are bent by a soft cap.
    pub is_capped: bool,
}

impl Cut {
    /// Rows of the tile that a cube owns.
    pub const fn n_owned(&self) -> usize {
        self.n_planes * BLOCK
    }

    /// Lines of a row of a stage: one more than it has numbers for, so that the same line of eight rows lies in eight
    /// different parts of shared memory.
    pub const fn stride(&self) -> usize {
        self.d / 8 + 1
    }

    pub const fn is_imitated(&self) -> bool {
        self.n_lanes != 1
    }

    pub const fn n_units(&self) -> usize {
        self.n_planes * PLANE / self.n_lanes
    }

    /// Query heads of a key head.
    pub const fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// Which operand a block of a stage becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The left one, a row for each row of the product.
    Left,
    /// The right one, a row for each column of the product.
    Right,
    /// The right one, a column for each column of the product.
    RightTurned,
}

/// The 16 × 16 numbers of a stage from `row` and `column` on, as an operand: four registers a lane.
#[cube]
pub fn fragment<E: Float>(
    stage: &Shared<[Line<E>]>,
    row: usize,
    column: usize,
    #[comptime] side: Side,
    #[comptime] cut: Cut,
) -> Array<Pair<E>> {
    if comptime!(cut.is_imitated()) {
        imitated_fragment::<E>(stage, row, column, side, cut)
    } else {
        // Each lane says where a row of the four blocks of 8 × 8 begins: the first eight of them those of the first block.
        let lane = UNIT_POS_X as usize;
        let (odd, upper) = (lane / 8 % 2, lane / 16);
        let down = if comptime!(side == Side::Right) { upper } else { odd };
        let right = if comptime!(side == Side::Right) { odd } else { upper };
        let at = (row + lane % 8 + down * 8) * comptime!(cut.stride()) + column / 8 + right;
        let tensor_core = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
        let is_turned = comptime!(side == Side::RightTurned);
        tensor_core.load_matrix::<Line<E>, Const<2>>(&stage[at..at + 1], MatrixIdent::A, 4usize, is_turned)
    }
}

#[cube]
fn imitated_fragment<E: Float>(
    stage: &Shared<[Line<E>]>,
    row: usize,
    column: usize,
    #[comptime] side: Side,
    #[comptime] cut: Cut,
) -> Array<Pair<E>> {
    let mut registers = Array::<Pair<E>>::new(comptime!(4 * cut.n_lanes));
    for lane in 0..comptime!(cut.n_lanes) {
        let (eighth, pair) = (lane / 4, lane % 4 * 2);
        for register in 0..4usize {
            let (odd, upper) = (register % 2 * 8, register / 2 * 8);
            let mut both = Pair::<E>::zeroed();
            if comptime!(side == Side::Left) {
                both.insert(0usize, number::<E>(stage, row + eighth + odd, column + pair + upper, cut));
                both.insert(1usize, number::<E>(stage, row + eighth + odd, column + pair + upper + 1, cut));
            } else if comptime!(side == Side::Right) {
                both.insert(0usize, number::<E>(stage, row + eighth + upper, column + pair + odd, cut));
                both.insert(1usize, number::<E>(stage, row + eighth + upper, column + pair + odd + 1, cut));
            } else {
                both.insert(0usize, number::<E>(stage, row + pair + odd, column + eighth + upper, cut));
                both.insert(1usize, number::<E>(stage, row + pair + odd + 1, column + eighth + upper, cut));
            }
            registers[lane * 4 + register] = both;
        }
    }
    registers
}

#[cube]
fn number<E: Float>(stage: &Shared<[Line<E>]>, row: usize, column: usize, #[comptime] cut: Cut) -> E {
    stage[row * comptime!(cut.stride()) + column / 8].extract_dynamic(column % 8)
}

/// A block of a sum, rounded, as the left operand of another product.
#[cube]
pub fn held<E: Float>(
    sums: &Array<Pair<f32>>,
    block: usize,
    #[comptime] n_blocks: usize,
    #[comptime] cut: Cut,
) -> Array<Pair<E>> {
    let unrolled = comptime!(!cut.is_imitated());
    let mut registers = Array::<Pair<E>>::new(comptime!(4 * cut.n_lanes));
    #[unroll(unrolled)]
    for lane in 0..comptime!(cut.n_lanes) {
        #[unroll(unrolled)]
        for register in 0..4usize {
            registers[lane * 4 + register] = Pair::<E>::cast_from(sums[(lane * n_blocks + block) * 4 + register]);
        }
    }
    registers
}

/// Adds a product of two blocks to block `block` of the `n_blocks` that lie side by side in `sums`.
#[cube]
pub fn add_product<E: Float>(
    left: &Array<Pair<E>>,
    right: &Array<Pair<E>>,
    sums: &mut Array<Pair<f32>>,
    block: usize,
    #[comptime] n_blocks: usize,
    #[comptime] cut: Cut,
) {
    if comptime!(cut.is_imitated()) {
        add_imitated_product::<E>(left, right, sums, block, n_blocks);
    } else {
        let tensor_core = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
        // The instruction makes eight columns.
        #[unroll]
        for half in 0..2usize {
            let mut columns = Array::<Pair<E>>::new(2usize);
            let mut sum = Array::<Pair<f32>>::new(2usize);
            #[unroll]
            for register in 0..2usize {
                columns[register] = right[half * 2 + register];
                sum[register] = sums[block * 4 + half * 2 + register];
            }
            let sum = tensor_core.execute(left, &columns, &sum);
            #[unroll]
            for register in 0..2usize {
                sums[block * 4 + half * 2 + register] = sum[register];
            }
        }
    }
}

#[cube]
fn add_imitated_product<E: Float>(
    left: &Array<Pair<E>>,
    right: &Array<Pair<E>>,
    sums: &mut Array<Pair<f32>>,
    block: usize,
    #[comptime] n_blocks: usize,
) {
    for row in 0..16usize {
        for columns in 0..8usize {
            // A product's pair of columns is two rows of the right operand.
            let (lane, half) = (columns % 4 * 2 * 4, columns / 4);
            let at = ((row % 8 * 4 + columns % 4) * n_blocks + block) * 4 + half * 2 + row / 8;
            let mut first = sums[at].extract(0usize);
            let mut second = sums[at].extract(1usize);
            for k in 0..8usize {
                let of_row = left[(row % 8 * 4 + k % 4) * 4 + k / 4 * 2 + row / 8];
                first += dot::<E>(of_row, right[(lane + k % 4) * 4 + half * 2 + k / 4]);
                second += dot::<E>(of_row, right[(lane + 4 + k % 4) * 4 + half * 2 + k / 4]);
            }
            let mut both = Pair::<f32>::zeroed();
            both.insert(0usize, first);
            both.insert(1usize, second);
            sums[at] = both;
        }
    }
}

#[cube]
fn dot<E: Float>(a: Pair<E>, b: Pair<E>) -> f32 {
    f32::cast_from(a.extract(0usize)) * f32::cast_from(b.extract(0usize))
        + f32::cast_from(a.extract(1usize)) * f32::cast_from(b.extract(1usize))
}

/// Two numbers a lane, of its upper and its lower row, joined over the four lanes of each quad: their sum, or the largest.
#[cube]
pub fn join_quads(numbers: &mut Array<f32>, #[comptime] is_sum: bool, #[comptime] cut: Cut) {
    if comptime!(cut.is_imitated()) {
        for quad in 0..8usize {
            for row in 0..2usize {
                let at = quad * 8 + row;
                let first = joined(numbers[at], numbers[at + 2], is_sum);
                let second = joined(numbers[at + 4], numbers[at + 6], is_sum);
                let all = joined(first, second, is_sum);
                for lane in 0..4usize {
                    numbers[at + lane * 2] = all;
                }
            }
        }
    } else {
        #[unroll]
        for row in 0..2usize {
            let own = numbers[row];
            let two = joined(own, plane_shuffle_xor(own, 1), is_sum);
            numbers[row] = joined(two, plane_shuffle_xor(two, 2), is_sum);
        }
    }
}

#[cube]
fn joined(a: f32, b: f32, #[comptime] is_sum: bool) -> f32 {
    if is_sum { a + b } else { max(a, b) }
}

/// Sets all registers of `n_blocks` blocks to 0.
#[cube]
pub fn clear(sums: &mut Array<Pair<f32>>, #[comptime] n_blocks: usize, #[comptime] cut: Cut) {
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for at in 0..comptime!(cut.n_lanes * n_blocks * 4) {
        sums[at] = Pair::<f32>::zeroed();
    }
}

/// Which lane of its plane a unit is, where it is the `nth` of those that it stands for.
#[cube]
pub fn lane(nth: usize) -> u32 {
    UNIT_POS_X + nth as u32
}

/// The row within its block of a lane's register.
#[cube]
pub fn row_of(lane: u32, register: usize) -> u32 {
    lane / 4 + register as u32 % 2 * 8
}

/// The first of the two columns, over all blocks side by side, of a lane's register.
#[cube]
pub fn column_of(lane: u32, register: usize) -> u32 {
    lane % 4 * 2 + register as u32 / 2 * 8
}
