"""Triton kernels of the Kalman filter along time: variances, estimates, and the gradients of both.

launch.py launches them; nothing is checked here. A program walks the tokens of some channels of one row, a chunk at a
time: within a chunk it scans, between chunks it carries one number. All in float32.
Letters: B rows, T tokens, D channels; r noise, q drift, P variance, g gain.
"""

import triton
import triton.language as tl


@triton.jit
def _then_affine(keep, add, keep_next, add_next):
    """x -> keep x + add, then x -> keep_next x + add_next."""
    return keep * keep_next, add * keep_next + add_next


@triton.jit
def _then_moebius(a, b, c, d, a_next, b_next, c_next, d_next):
    """P -> (a P + b) / (c P + d), then the next one, with entries near one."""
    e, f = a_next * a + b_next * c, a_next * b + b_next * d
    g, h = c_next * a + d_next * c, c_next * b + d_next * d
    scale = 1.0 / tl.maximum(e + f + g + h, 1e-37)
    return e * scale, f * scale, g * scale, h * scale


@triton.jit
def _row(x, index, wanted):
    """One row of a tile."""
    return tl.sum(tl.where(index[:, None] == wanted, x, 0.0), 0)


@triton.jit
def _gain(before, r, q, begins):
    """g and 1 - g of a token, the latter not by that difference."""
    total = before + q + r
    return tl.where(begins, 1.0, (before + q) / total), tl.where(begins, 0.0, r / total)


@triton.jit
def variance_kernel(
    noise_ptr, drift_ptr, position_ptr, out_ptr, tokens, channels, BT: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """P after each token: r (P + q) / (P + q + r), r where a document begins."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    index = tl.arange(0, BT)
    q = tl.load(drift_ptr + d, mask=d < channels, other=0.0).to(tl.float32)[None, :]
    carried = tl.zeros((BD,), tl.float32)
    for first in range(0, tokens, BT):
        t = first + index
        there = (t[:, None] < tokens) & (d[None, :] < channels)
        place = (row * tokens + t[:, None]) * channels + d[None, :]
        r = tl.load(noise_ptr + place, mask=there, other=1.0).to(tl.float32)
        begins = (tl.load(position_ptr + row * tokens + t, mask=t < tokens, other=1) == 0)[:, None]
        # Divided by 1 + r, so that no product overflows.
        share, unit = r / (1.0 + r), 1.0 / (1.0 + r)
        _, over, _, under = _scanned_moebius(share, unit, q, begins, carried)
        variance = over / under
        tl.store(out_ptr + place, variance, mask=there)
        carried = _row(variance, index, BT - 1)


@triton.jit
def _scanned_moebius(share, unit, q, begins, carried):
    """The maps of a chunk composed from its first token, applied to what came before: numerator and denominator."""
    a, b, c, d = tl.associative_scan(
        (
            tl.where(begins, 0.0, share),
            tl.where(begins, share, share * q),
            tl.where(begins, 0.0, unit),
            tl.where(begins, unit, unit * q + share),
        ),
        0,
        _then_moebius,
    )
    before = carried[None, :]
    return a, a * before + b, c, c * before + d


@triton.jit
def estimate_kernel(
    observed_ptr, noise_ptr, drift_ptr, position_ptr, variance_ptr, out_ptr, tokens, channels,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """h after each token: (1 - g) h + g z."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    index = tl.arange(0, BT)
    q = tl.load(drift_ptr + d, mask=d < channels, other=0.0).to(tl.float32)[None, :]
    carried = tl.zeros((BD,), tl.float32)
    for first in range(0, tokens, BT):
        t = first + index
        there = (t[:, None] < tokens) & (d[None, :] < channels)
        place = (row * tokens + t[:, None]) * channels + d[None, :]
        z = tl.load(observed_ptr + place, mask=there, other=0.0).to(tl.float32)
        r = tl.load(noise_ptr + place, mask=there, other=1.0).to(tl.float32)
        before = tl.load(variance_ptr + place - channels, mask=there & (t[:, None] > 0), other=0.0)
        begins = (tl.load(position_ptr + row * tokens + t, mask=t < tokens, other=1) == 0)[:, None]
        gain, rest = _gain(before, r, q, begins)
        keep, add = tl.associative_scan((rest, gain * z), 0, _then_affine)
        estimate = keep * carried[None, :] + add
        tl.store(out_ptr + place, estimate, mask=there)
        carried = _row(estimate, index, BT - 1)


@triton.jit
def observed_gradient_kernel(
    grad_ptr, observed_ptr, noise_ptr, drift_ptr, position_ptr, variance_ptr, estimate_ptr,
    grad_observed_ptr, of_gain_ptr, tokens, channels, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """From the last token to the first: pull_t = dh_t + (1 - g') pull', a prime for the next token.

    dz_t = pull_t g_t, and the gain's gradient over r_t, pull_t (z_t - h_(t-1)) / r_t, for the kernel below.
    """
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    index = tl.arange(0, BT)
    q = tl.load(drift_ptr + d, mask=d < channels, other=0.0).to(tl.float32)[None, :]
    pulled = tl.zeros((BD,), tl.float32)
    chunks = tl.cdiv(tokens, BT)
    for chunk in range(chunks):
        t = (chunks - 1 - chunk) * BT + index
        there = (t[:, None] < tokens) & (d[None, :] < channels)
        place = (row * tokens + t[:, None]) * channels + d[None, :]
        earlier, later = there & (t[:, None] > 0), there & (t[:, None] + 1 < tokens)
        grad = tl.load(grad_ptr + place, mask=there, other=0.0).to(tl.float32)
        z = tl.load(observed_ptr + place, mask=there, other=0.0).to(tl.float32)
        r = tl.load(noise_ptr + place, mask=there, other=1.0).to(tl.float32)
        r_next = tl.load(noise_ptr + place + channels, mask=later, other=1.0).to(tl.float32)
        begins = (tl.load(position_ptr + row * tokens + t, mask=t < tokens, other=1) == 0)[:, None]
        # Nothing follows the last token, as nothing follows from a document to the next.
        ends = (tl.load(position_ptr + row * tokens + t + 1, mask=t + 1 < tokens, other=0) == 0)[:, None]
        gain, _ = _gain(tl.load(variance_ptr + place - channels, mask=earlier, other=0.0), r, q, begins)
        _, rest_next = _gain(tl.load(variance_ptr + place, mask=there, other=0.0), r_next, q, ends)
        keep, add = tl.associative_scan((rest_next, grad), 0, _then_affine, reverse=True)
        pull = keep * pulled[None, :] + add
        tl.store(grad_observed_ptr + place, pull * gain, mask=there)
        estimate = tl.load(estimate_ptr + place - channels, mask=earlier, other=0.0)
        tl.store(of_gain_ptr + place, tl.where(begins, 0.0, pull * (z - estimate)) / r, mask=there)
        pulled = _row(pull, index, 0)


@triton.jit
def noise_gradient_kernel(
    of_gain_ptr, noise_ptr, drift_ptr, position_ptr, variance_ptr, grad_noise_ptr, grad_drift_ptr, tokens, channels,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """From the last token to the first: push_t = (1 - g')^2 (of_gain' + push'), what later tokens ask of P_t.

    dr_t = g^2 push - g (1 - g) of_gain; dq is the sum over t of (1 - g)^2 (of_gain + push), here for each row.
    """
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    index = tl.arange(0, BT)
    q = tl.load(drift_ptr + d, mask=d < channels, other=0.0).to(tl.float32)[None, :]
    pushed, drift = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    chunks = tl.cdiv(tokens, BT)
    for chunk in range(chunks):
        t = (chunks - 1 - chunk) * BT + index
        there = (t[:, None] < tokens) & (d[None, :] < channels)
        place = (row * tokens + t[:, None]) * channels + d[None, :]
        earlier, later = there & (t[:, None] > 0), there & (t[:, None] + 1 < tokens)
        of_gain = tl.load(of_gain_ptr + place, mask=there, other=0.0)
        of_gain_next = tl.load(of_gain_ptr + place + channels, mask=later, other=0.0)
        r = tl.load(noise_ptr + place, mask=there, other=1.0).to(tl.float32)
        r_next = tl.load(noise_ptr + place + channels, mask=later, other=1.0).to(tl.float32)
        begins = (tl.load(position_ptr + row * tokens + t, mask=t < tokens, other=1) == 0)[:, None]
        ends = (tl.load(position_ptr + row * tokens + t + 1, mask=t + 1 < tokens, other=0) == 0)[:, None]
        gain, rest = _gain(tl.load(variance_ptr + place - channels, mask=earlier, other=0.0), r, q, begins)
        _, rest_next = _gain(tl.load(variance_ptr + place, mask=there, other=0.0), r_next, q, ends)
        slope = rest_next * rest_next
        keep, add = tl.associative_scan((slope, slope * of_gain_next), 0, _then_affine, reverse=True)
        push = keep * pushed[None, :] + add
        tl.store(grad_noise_ptr + place, push * gain * gain - of_gain * gain * rest, mask=there)
        drift += tl.sum(tl.where(there, (of_gain + push) * rest * rest, 0.0), 0)
        pushed = _row(push, index, 0)
    tl.store(grad_drift_ptr + row * channels + d, drift, mask=d < channels)
