"""Hand-made features of how body 0 stands and moves, for attackers that need no network.

All are computed in float64 and rounded to 1e-5 of their unit: a mean over more frames has another rounding error, and a tree
would otherwise read the length of a clip out of a body that never moves. For the same reason nothing here counts frames.
"""

import torch
from torch import Tensor

from bench.skeleton import Layout

_DECIMALS = 5
_SHORTEST = 1e-6  # metres; a shorter bone points nowhere
_SMOOTHED = 0.4  # seconds
_STATS_HERTZ = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_SWING_HERTZ = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def flat_features(clips: Tensor, frames: int = 100) -> Tensor:
    """Body 0 resampled to `frames` frames, one after the other (Pantomime's recognition features): (N, frames * V * 3) float64.

    Frames are interpolated linearly between the first and the last that hold the body, at equal steps; frames without the body
    are bridged. A clip without a body gives zeros.

    Args:
        clips: (N, 3, T, V, M), metres; absent bodies are zero.
        frames: Frames of the result.
    """
    body, present = _body(clips)
    steps = torch.arange(body.shape[1], dtype=body.dtype, device=body.device)
    first, last = _span(present)
    share = torch.linspace(0, 1, frames, dtype=body.dtype, device=body.device)
    at = first[:, None] + share * (last - first)[:, None]  # (N, frames), in frames of the clip
    count = present.sum(dim=1, keepdim=True)
    order = (~present).to(torch.uint8).argsort(dim=1, stable=True)  # frames with the body first, in their order
    times = torch.where(steps < count, order.to(body.dtype), torch.inf)  # (N, T)
    right = torch.searchsorted(times, at, right=True)
    highest = (count - 1).clamp_min(0)
    before, after = (torch.minimum((right - k).clamp_min(0), highest) for k in (1, 0))
    start, end = order.gather(1, before), order.gather(1, after)
    weight = ((at - start) / (end - start).clamp_min(1)).clamp(0, 1)
    low, high = (body.gather(1, pick[:, :, None, None].expand(-1, -1, *body.shape[2:])) for pick in (start, end))
    # Written so that equal neighbours give exactly their value: a body that stands still has no length.
    return _rounded((low + weight[:, :, None, None] * (high - low)).flatten(1))


def stats_features(clips: Tensor, frame_rate: float) -> Tensor:
    """Where each joint of body 0 is and how fast it moves, for `stats-rf`: (N, 18 * V) float64.

    Of each joint: mean, standard deviation and range of each coordinate (metres), quantiles of its speed (m/s) and of its
    acceleration (m/s^2), and the frequency (Hz) at which it moves most; 0 for a joint that does not move.

    Args:
        clips: (N, 3, T, V, M), metres; absent bodies are zero.
        frame_rate: Frames per second.
    """
    body, present = _body(clips)
    place = body.flatten(2)  # (N, T, V * 3)
    mean, deviation = _moments(place, present)
    spread = _quantiles(place, present, (0.0, 1.0)).diff(dim=1)[:, 0]
    velocity, moving = body.diff(dim=1) * frame_rate, present[:, 1:] & present[:, :-1]
    change, turning = velocity.diff(dim=1) * frame_rate, moving[:, 1:] & moving[:, :-1]
    speed = _quantiles(velocity.norm(dim=3), moving, (0.25, 0.5, 0.75, 0.95)).flatten(1)
    acceleration = _quantiles(change.norm(dim=3), turning, (0.25, 0.5, 0.75, 0.95)).flatten(1)
    hertz = _below_nyquist(_STATS_HERTZ, frame_rate, body)
    power = _amplitudes(place, present, hertz, frame_rate).square().unflatten(2, body.shape[2:]).sum(dim=3)  # (N, F, V)
    strongest, which = power.max(dim=1)
    dominant = torch.where(strongest > 1e-12, hertz[which], 0.0)  # below a micrometre: rounding
    return _rounded(torch.cat([mean, deviation, spread, speed, acceleration, dominant], dim=1))


def direction_features(clips: Tensor, layout: Layout, frame_rate: float) -> Tensor:
    """How body 0 holds and moves itself, whatever its size, for `gait-dyn`: (N, F) float64.

    Computed from the unit vectors along the bones alone, so that neither bone lengths nor places matter. Of each bone: mean and
    standard deviation of its direction, quantiles of its angular speed (rad/s) and the amplitude of its swing at frequencies
    of 0.5 to 4 Hz; of each pair of adjacent bones: quantiles of the angle between them (rad). Directions are smoothed over
    0.4 s first: a sensor's noise of a centimetre shakes a short bone by a greater angle than a long one, so that the jitter
    would tell the very lengths that are left out.

    Args:
        clips: (N, 3, T, V, M), metres; absent bodies are zero.
        layout: Layout of the V joints; bones are those of its kinematic tree.
        frame_rate: Frames per second.
    """
    body, present = _body(clips)
    child, parent = torch.tensor(layout.bones, device=clips.device).reshape(-1, 2).T
    ways = _unit(_smooth(_unit(body[:, :, child] - body[:, :, parent]), present, frame_rate * _SMOOTHED))  # (N, T, B, 3)
    mean, deviation = _moments(ways.flatten(2), present)
    bends = _quantiles(_angle(*(ways[:, :, list(side)] for side in _adjacent(layout))), present, (0.1, 0.5, 0.9))
    speed = _angle(ways[:, 1:], ways[:, :-1]) * frame_rate  # (N, T - 1, B)
    speed = _quantiles(speed, present[:, 1:] & present[:, :-1], (0.5, 0.75, 0.95))
    hertz = _below_nyquist(_SWING_HERTZ, frame_rate, body)
    swing = _amplitudes(ways.flatten(2), present, hertz, frame_rate).unflatten(2, ways.shape[2:]).norm(dim=3)  # (N, F, B)
    return _rounded(torch.cat([mean, deviation, bends.flatten(1), speed.flatten(1), swing.flatten(1)], dim=1))


def _adjacent(layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bones that meet end to end in the kinematic tree: indices of the outer and of the inner one."""
    bone = {child: i for i, (child, _) in enumerate(layout.bones)}
    pairs = [(bone[child], bone[parent]) for child, parent in layout.bones if parent in bone]
    return tuple(outer for outer, _ in pairs), tuple(inner for _, inner in pairs)


def _body(clips: Tensor) -> tuple[Tensor, Tensor]:
    """Body 0, (N, T, V, 3) float64, and the frames that hold it, (N, T)."""
    body = clips[..., 0].permute(0, 2, 3, 1).double()
    return body, (body != 0).flatten(2).any(dim=2)


def _span(present: Tensor) -> tuple[Tensor, Tensor]:
    """First and last frame (N,) that hold the body; 0 and 0 without one."""
    frames = present.shape[1]
    last = frames - 1 - present.flip(1).to(torch.uint8).argmax(dim=1)
    there = present.any(dim=1)
    return present.to(torch.uint8).argmax(dim=1), torch.where(there, last, 0)


def _moments(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the valid frames of values (N, T, S): each (N, S)."""
    valid = valid.to(values.dtype)
    weight = (valid / valid.sum(dim=1, keepdim=True).clamp_min(1))[..., None]
    mean = (values * weight).sum(dim=1)
    return mean, ((values - mean[:, None]).square() * weight).sum(dim=1).sqrt()


def _quantiles(values: Tensor, valid: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Quantiles over the valid frames of values (N, T, S), interpolated linearly: (N, L, S); 0 where no frame is valid."""
    if not values.shape[1]:
        return values.new_zeros(len(values), len(levels), values.shape[2])
    ordered = values.masked_fill(~valid[..., None], torch.inf).sort(dim=1).values
    count = valid.sum(dim=1)
    at = values.new_tensor(levels) * (count - 1).clamp_min(0)[:, None]  # (N, L)
    below = at.long()
    above = torch.minimum(below + 1, (count - 1).clamp_min(0)[:, None])
    low, high = (ordered.gather(1, pick[..., None].expand(-1, -1, values.shape[2])) for pick in (below, above))
    found = low + (at - below)[..., None] * (high - low)
    return torch.where((count > 0)[:, None, None], found, 0.0)


def _amplitudes(values: Tensor, valid: Tensor, hertz: Tensor, frame_rate: float) -> Tensor:
    """Amplitude of the oscillation of values (N, T, S) at each frequency: (N, F, S), in the unit of the values.

    A Fourier transform at these very frequencies, whatever the length of the clip, under a sine-squared window over the frames
    from the first valid one to the last; frames in between that are not valid count as the mean.
    """
    first, last = (edge[:, None] for edge in _span(valid))
    steps = torch.arange(values.shape[1], dtype=values.dtype, device=values.device)
    window = torch.sin(torch.pi * (steps - first + 0.5) / (last - first + 1)).square() * valid
    window = (window / window.sum(dim=1, keepdim=True).clamp_min(1e-12))[..., None]  # (N, T, 1)
    swing = (values - (values * window).sum(dim=1, keepdim=True)) * window
    turn = 2 * torch.pi / frame_rate * hertz[:, None] * steps  # (F, T)
    return 2 * torch.hypot(turn.cos() @ swing, turn.sin() @ swing)


def _below_nyquist(hertz: tuple[float, ...], frame_rate: float, like: Tensor) -> Tensor:
    return like.new_tensor([f for f in hertz if f <= frame_rate / 2])


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (..., 3) at unit length; zero if they point nowhere."""
    lengths = vectors.norm(dim=-1, keepdim=True)
    return torch.where(lengths > _SHORTEST, vectors / lengths.clamp_min(_SHORTEST), 0.0)


def _smooth(values: Tensor, valid: Tensor, width: float) -> Tensor:
    """Mean of the valid frames of values (N, T, S, ...) around each frame, under a sine-squared window of `width` frames."""
    steps = torch.arange(values.shape[1], dtype=values.dtype, device=values.device)
    distance = ((steps[:, None] - steps) / width).clamp(-0.5, 0.5)
    weight = torch.cos(torch.pi * distance).square() * (distance.abs() < 0.5) * valid[:, None]  # (N, T, T)
    weight = weight / weight.sum(dim=2, keepdim=True).clamp_min(1e-12)
    return (weight @ values.flatten(2)).view_as(values)


def _angle(one: Tensor, other: Tensor) -> Tensor:
    """Angle in radians between unit vectors (..., 3); 0 if one of them is zero.

    By the arc tangent: exactly 0 for equal vectors, which the arc cosine of their product is not.
    """
    angle = 2 * torch.atan2((one - other).norm(dim=-1), (one + other).norm(dim=-1))
    return angle * (one.any(dim=-1) & other.any(dim=-1))


def _rounded(features: Tensor) -> Tensor:
    return features.round(decimals=_DECIMALS) + 0.0  # no negative zeros
