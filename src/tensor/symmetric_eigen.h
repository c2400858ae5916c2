#pragma once

#include <cstddef>

/// Eigenvectors of symmetric matrices; no LAPACK.
namespace mneme {

/// Eigenvalues (descending) of the symmetric matrix a [n, n] and its eigenvectors as rows of `vectors` [n, n]:
/// Householder reflections to a tridiagonal matrix, then QL steps with implicit shifts (EISPACK's tred2 and tql2).
/// About 9 n^3 operations. `a` is destroyed. Throws Error(kInvalidArgument) when `a` has a value that is not finite.
void symmetric_eigen(double* a, size_t n, double* values, double* vectors);

/// The first `rank` of them, rows of `vectors` [rank, n], for a matrix without negative eigenvalues. A small rank of a
/// large matrix is found by subspace iteration (Halko, Martinsson, Tropp, arXiv 0909.4061), to about 1e-3 of the energy
/// that the rank leaves out. `a` is destroyed. Throws as above.
void dominant_eigenvectors(double* a, size_t n, size_t rank, double* vectors);

}  // namespace mneme
