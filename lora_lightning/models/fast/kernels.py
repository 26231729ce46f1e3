"""Triton kernels; imported on a GPU alone, where torch brings Triton."""

import triton
import triton.language as tl


@triton.jit
def transpose(source, target, m, n, stride, tile: tl.constexpr):
    """Write the matrix (m, n) of bytes, with `stride` between its rows, as (n, m)."""
    rows = tl.program_id(0) * tile + tl.arange(0, tile)
    columns = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    block = tl.load(source + rows[:, None].to(tl.int64) * stride + columns[None, :], mask=inside)
    inside = (columns[:, None] < n) & (rows[None, :] < m)
    tl.store(target + columns[:, None].to(tl.int64) * m + rows[None, :], tl.trans(block), mask=inside)
