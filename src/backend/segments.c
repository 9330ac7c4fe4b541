/// Lists of segments of parameter slabs.
#include "backend_impl.h"

#include <math.h>
#include <string.h>

hirl_status_t hirl_segments_create(hirl_backend_t *be, const hirl_segment_t *segment, int64_t n,
                                   hirl_segments_t **segments_p) {
    HIRL_REQUIRE(be && segment && n >= 1 && segments_p, HIRL_ERR_ARG,
                 "segments: backend, output and one segment at least are needed");
    int64_t end = 0;
    for (int64_t i = 0; i < n; ++i) {
        const hirl_segment_t *s = &segment[i];
        HIRL_REQUIRE(s->first >= end && s->count >= 1 && s->count <= INT64_MAX - s->first,
                     HIRL_ERR_ARG,
                     "segments: number %lld has %lld elements from %lld on, want 1 at least from "
                     "%lld on",
                     (long long)i, (long long)s->count, (long long)s->first, (long long)end);
        HIRL_REQUIRE(isfinite(s->weight_decay), HIRL_ERR_ARG,
                     "segments: number %lld has weight decay %g", (long long)i,
                     (double)s->weight_decay);
        end = s->first + s->count;
    }
    hirl_segments_t *segments = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_PARAM, 1, &segments));
    segments->be = be;
    segments->n = n;
    segments->end = end;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_PARAM, n, &segments->segment), status, err);
    memcpy(segments->segment, segment, (size_t)n * sizeof *segment);
    if (be->ops->pack_segments) HIRL_TRY_GOTO(be->ops->pack_segments(be, segments), status, err);
    *segments_p = segments;
    return HIRL_OK;
err:
    hirl_segments_destroy(&segments);
    return status;
}

void hirl_segments_destroy(hirl_segments_t **segments) {
    if (!segments || !*segments) return;
    hirl_tensor_reset(&(*segments)->packed);
    hirl_mem_free((*segments)->segment);
    hirl_mem_free(*segments);
    *segments = NULL;
}
