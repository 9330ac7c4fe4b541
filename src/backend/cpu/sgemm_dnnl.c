/// Defines BLAS's Fortran symbol sgemm_ on top of oneDNN. FAISS's exhaustive searches and assignments spend their
/// time in this one routine, and oneDNN's is several times faster than OpenBLAS's on processors that OpenBLAS does
/// not know. Linked as an object ahead of OpenBLAS, which keeps serving everything else.
#include <cblas.h>
#include <dnnl.h>

/// C = alpha op(A) op(B) + beta C, all column-major. Not collective. Declared by FAISS itself, in no header.
int sgemm_(const char *trans_a, const char *trans_b, const int *m, const int *n, const int *k,
           const float *alpha, const float *a, const int *ld_a, const float *b, const int *ld_b,
           const float *beta, float *c, const int *ld_c);

static char op_of(char trans) { return trans == 'N' || trans == 'n' ? 'N' : 'T'; }

int sgemm_(const char *trans_a, const char *trans_b, const int *m, const int *n, const int *k,
           const float *alpha, const float *a, const int *ld_a, const float *b, const int *ld_b,
           const float *beta, float *c, const int *ld_c) {
    const char op_a = op_of(*trans_a), op_b = op_of(*trans_b);
    if (*m <= 0 || *n <= 0) return 0;
    // A column-major matrix read as row-major is its transpose: C' = op(B)' op(A)'.
    if (dnnl_sgemm(op_b, op_a, *n, *m, *k, *alpha, b, *ld_b, a, *ld_a, *beta, c, *ld_c) ==
        dnnl_success)
        return 0;
    // BLAS has no way to report a failure: what oneDNN declines goes to OpenBLAS.
    cblas_sgemm(CblasColMajor, op_a == 'N' ? CblasNoTrans : CblasTrans,
                op_b == 'N' ? CblasNoTrans : CblasTrans, *m, *n, *k, *alpha, a, *ld_a, b, *ld_b,
                *beta, c, *ld_c);
    return 0;
}
