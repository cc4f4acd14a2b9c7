//! What is taken away, what stays, what is found damaged, and how it is mended.

mod fsck;
mod gc;
mod shelf;
