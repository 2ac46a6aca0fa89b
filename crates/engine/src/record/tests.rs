//! Folds of histories that are written out here.
