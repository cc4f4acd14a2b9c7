//! The DAG of a pipeline: order, schemas, its picture as a tree.
